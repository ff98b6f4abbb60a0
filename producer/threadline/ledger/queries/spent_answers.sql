-- R2: %(job_id)s, %(thread_id)s. The questions that were open when this job was first claimed and whose tasks may have
-- taken an answer since (in any namespace: a subagent's task notes it before the task above it does). What a task has
-- taken it keeps; given again, it would answer the task's next question. Whether it took one shows in what it noted then
-- (`before_`, null: nothing) and notes now (`taken_`): the bytes are compared where they can be read, by the worker.
SELECT asked.checkpoint_ns, asked.checkpoint_id, asked.task_id, asked.idx, asked.channel, asked.type, asked.blob,
    taken.idx AS taken_idx, taken.channel AS taken_channel, taken.type AS taken_type, taken.blob AS taken_blob,
    before.type AS before_type, before.blob AS before_blob
FROM {schema}.job_base_writes AS asked
JOIN {checkpoints}.checkpoint_writes AS taken ON taken.thread_id = %(thread_id)s
    AND taken.checkpoint_ns = asked.checkpoint_ns AND taken.checkpoint_id = asked.checkpoint_id
    AND taken.task_id = asked.task_id AND taken.channel = '__resume__'
LEFT JOIN {schema}.job_base_writes AS before ON before.job_id = asked.job_id
    AND before.checkpoint_ns = taken.checkpoint_ns AND before.checkpoint_id = taken.checkpoint_id
    AND before.task_id = taken.task_id AND before.idx = taken.idx AND before.channel = taken.channel
WHERE asked.job_id = %(job_id)s AND asked.channel = '__interrupt__'
  AND before.blob IS DISTINCT FROM taken.blob
