// "Where is this user, and why?": the answer of /api/v1/users/:address/why as a list of steps with a verdict above.
import { api } from './api.js';
import { byId, el, state } from './dom.js';
import { duration } from './format.js';

/** Makes the search box work. @param {(error: unknown) => void} failed told when the session has ended */
export function startWhy(failed) {
  let latest = 0;
  byId('why-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    const address = byId('why-address').value.trim();
    if (address === '') return;
    latest += 1;
    const mine = latest;
    const target = byId('why-answer');
    target.replaceChildren(el('div.faint', {}, `Asking for ${address} …`));
    let content;
    try {
      content = answer(await api(`/api/v1/users/${encodeURIComponent(address)}/why`, { timeoutMs: 20_000 }));
    } catch (error) {
      failed(error);
      content = [state('bad', 'no answer'), el('p.faint', {}, `${error.message}${error.hint ? ` → ${error.hint}` : ''}`)];
    }
    // An older question may be answered later than a newer one.
    if (mine === latest) target.replaceChildren(...content);
  });
}

const levels = { served: 'ok', unknown: 'warn', refused: 'bad', unavailable: 'bad' };

function answer(why) {
  const { directory, account, whereabouts, verdict, replies } = why;
  const rows = [];
  const add = (title, ...lines) => rows.push(el('dt', {}, title), el('dd', {}, ...lines.map((line) => el('div', {}, line))));
  add(
    'Directory',
    directory.error ?? `asked ${directory.server ?? 'nobody'}${directory.lagMs === undefined ? '' : `, lag ${duration(directory.lagMs)}`}`,
    ...directory.servers
      .filter((server) => !server.reachable)
      .map((server) => state('warn', `${server.url} does not answer: ${server.lastError ?? 'no reason known'}`)),
  );
  if (account === undefined) add('Entry', 'none');
  else {
    add('Entry', account.dn, `${account.uuid}, ${account.status}`);
    add('hostServer', account.hostServer ?? state('bad', account.hostServerProblem ?? 'none'));
  }
  if (whereabouts !== undefined) {
    const host = whereabouts.currentHost === undefined ? '' : ` on ${whereabouts.currentHost}`;
    add('Account', `${whereabouts.state}${host}${whereabouts.epoch === undefined ? '' : `, epoch ${whereabouts.epoch}`}`);
  } else if (why.whereaboutsError !== undefined) add('Account', state('bad', why.whereaboutsError));
  if (why.explanations.length > 0) add('Frontends', ...why.explanations.map(explanation));
  if (why.disagreement !== undefined) add('Disagreement', state('warn', why.disagreement));
  add('Sessions', ...(why.sessions.length === 0 ? ['none'] : why.sessions.map(session(why.atMs))));
  if (replies.replied < replies.asked) add('Replies', state('bad', `${replies.replied} of ${replies.asked} nodes`));
  return [
    el('div', {}, state(levels[verdict.state] ?? 'bad', verdict.state), ` ${verdict.text}`),
    ...(verdict.fix === undefined ? [] : [el('div.faint', {}, `→ ${verdict.fix}`)]),
    el('dl.steps', {}, ...rows),
    el('div.faint', {}, 'As a command: ', el('code', {}, `archipelago user why ${why.address}`)),
  ];
}

function explanation(each) {
  const found =
    each.verdict === 'routed'
      ? `${each.hostServer ?? ''} → ${each.member ?? ''}${each.memberReason === undefined ? '' : ` (${each.memberReason})`}`
      : `${each.verdict}: ${each.steps.at(-1)?.found ?? ''}`;
  return el(
    'details',
    {},
    el('summary', {}, state(each.verdict === 'routed' ? 'ok' : 'bad', `${each.frontend} (${each.subset})`), ` ${found}`),
    ...each.steps.map((step) => el('div.step', {}, `${step.what}: ${step.found}`)),
  );
}

function session(atMs) {
  return (each) =>
    `${each.protocol} from ${each.clientAddress}: ${each.frontend} → ${each.member}, for ${duration(Math.max(0, atMs - each.startedAtMs))} (${each.sessionId})`;
}
