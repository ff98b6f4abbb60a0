-- R2: %(job_id)s, %(thread_id)s. The questions that were open when this job was first claimed and whose tasks have taken an
-- answer since (in any namespace: a subagent's task notes it before the task above it does). What a task has taken it
-- keeps; given again, it would answer the task's next question.
SELECT asked.type, asked.blob
FROM {schema}.job_base_writes AS asked
JOIN {checkpoints}.checkpoint_writes AS taken ON taken.thread_id = %(thread_id)s
    AND taken.checkpoint_ns = asked.checkpoint_ns AND taken.checkpoint_id = asked.checkpoint_id
    AND taken.task_id = asked.task_id AND taken.channel = '__resume__'
WHERE asked.job_id = %(job_id)s AND asked.channel = '__interrupt__'
  AND NOT EXISTS (SELECT FROM {schema}.job_base_writes AS before
    WHERE before.job_id = asked.job_id AND before.checkpoint_ns = taken.checkpoint_ns
      AND before.checkpoint_id = taken.checkpoint_id AND before.task_id = taken.task_id
      AND before.channel = taken.channel AND before.blob = taken.blob)
