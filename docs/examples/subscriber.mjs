// Follows a job; written from docs/protocol.md alone, without dependencies. Prints one event a line, ends with the job.
//   REDIS_URL=redis://:password@host:6379/0 node subscriber.mjs JOB [LAST-ID]
// One connection in RESP3, where published messages are pushes between the answers. TLS (rediss://) is left out.
import net from "node:net";

const [job, start] = process.argv.slice(2);
const url = new URL(process.env.REDIS_URL ?? "redis://127.0.0.1:6379/0");
const key = `${process.env.THREADLINE_NAMESPACE ?? "threadline"}:events:{${job}}`;
const ENDS = new Set(["succeeded", "failed", "cancelled", "interrupted"]);
let last = start ?? null, step = null, ended = false;

const position = (id) => id.split("-").map(BigInt);
const seen = (id) => last !== null && (([a, b], [c, d]) => a < c || (a === c && b <= d))(position(id), position(last));
const print = (value) => console.log(JSON.stringify(value));

function follows(event) { // "Positions", rules 1 to 3
  const [epoch, n] = position(event.id);
  if (event.type === "resumed" && step !== null && event.step > step) return false;
  return n === 1n ? epoch === 0n || event.prev === last : last === `${epoch}-${n - 1n}`;
}
const begins = { tasks: (data) => data && "input" in data, debug: (data) => data?.type === "task" };
const endsStep = ({ type, data }) => !["messages", "custom", "tools"].includes(type) && !begins[type]?.(data);
function show(event) {
  if (!follows(event)) print({ v: 1, job_id: job, type: "gap", data: { after: last, next: event.id } });
  print(event);
  last = event.id;
  if (event.ns.length === 0 && endsStep(event)) step = event.step ?? step;
}
function parse(text) { // an event of this job with a position, or null: whoever reaches Redis may write anything
  try { const event = JSON.parse(text); return /^\d+-\d+$/.test(event.id) && event.job_id === job ? event : null; } catch { return null; }
}
function reply(b, at = 0) { // one value of Redis' protocol as [value, where it ends]; null while it is incomplete
  const eol = b.indexOf("\r\n", at), kind = String.fromCharCode(b[at]);
  if (eol < 0) return null;
  const line = b.toString("utf8", at + 1, eol), n = Number(line), next = eol + 2;
  if (kind === "$") return b.length < next + n + 2 ? null : [b.toString("utf8", next, next + n), next + n + 2];
  if (!"*>%".includes(kind)) return [kind === "-" ? new Error(line) : line, next];
  const items = Object.assign([], { pushed: kind === ">" });
  let end = next;
  for (let left = kind === "%" ? 2 * n : n; left > 0; left--) {
    const item = reply(b, end);
    if (item === null) return null;
    items.push(item[0]);
    end = item[1];
  }
  return [items, end];
}
async function session(socket) {
  let buffer = Buffer.alloc(0), wake = () => {};
  const live = [], answers = [];
  const cut = new Promise((_, no) => ["error", "close"].forEach((sign) => socket.on(sign, () => no(new Error(sign)))));
  socket.setTimeout(10000, () => socket.destroy(new Error("silent"))); // the look every 5 s is answered, or it is dead
  socket.on("data", (chunk) => {
    buffer = Buffer.concat([buffer, chunk]);
    for (let got; (got = reply(buffer)) !== null; buffer = buffer.subarray(got[1])) {
      if (got[0].pushed && got[0][0] === "message") wake(live.push(parse(got[0][2])));
      else answers.shift()(got[0]); // the acknowledgement of SUBSCRIBE is a push, too
    }
  });
  const ask = async (...words) => {
    socket.write(`*${words.length}\r\n${words.map((w) => `$${Buffer.byteLength(w)}\r\n${w}\r\n`).join("")}`);
    const answer = await Promise.race([cut, new Promise((yes) => answers.push(yes))]);
    const refused = answer instanceof Error && !/^(LOADING|BUSY|MASTERDOWN) /.test(answer.message); // these will pass
    if (answer instanceof Error) throw Object.assign(answer, { refused });
    return answer;
  };
  const entries = async (...words) => (await ask(...words)).map(([id, fields]) => {
    const event = parse(fields[fields.indexOf("e") + 1]);
    return event?.id === id ? event : { id }; // not ours: only its place in the stream counts
  });
  const replay = async () => {
    for (let from = last, page; ; from = page.at(-1).id) {
      page = await entries("XRANGE", key, from ? `(${from}` : "-", "+", "COUNT", "100");
      if (page.length === 0) return;
      for (const event of page.filter((e) => e.type)) {
        show(event);
        ended = ENDS.has(event.type);
      }
    }
  };
  const password = decodeURIComponent(url.password), user = decodeURIComponent(url.username) || "default";
  await ask("HELLO", "3", ...(password ? ["AUTH", user, password] : []));
  await ask("SELECT", url.pathname.slice(1) || "0");
  await ask("SUBSCRIBE", key); // step 1
  ended = (await entries("XREVRANGE", key, "+", "-", "COUNT", "1")).some((e) => ENDS.has(e.type) && seen(e.id));
  for (let event = null; !ended; event = live.shift()) {
    if (!event || (!seen(event.id) && (ENDS.has(event.type) || !follows(event)))) await replay(); // steps 2, 4, 5
    else if (!seen(event.id)) show(event); // step 3
    if (!ended && !live.length) await Promise.race([cut, new Promise((yes) => setTimeout((wake = yes), 5000))]);
  }
}
while (!ended) { // connected anew, everything behind the last id is read again
  try { await session(net.connect(Number(url.port || 6379), url.hostname)); }
  catch (error) { if (error.refused) throw error; else await new Promise((yes) => setTimeout(yes, 200)); }
}
process.exit();
