// The overview: totals, findings, and left to right subsets → directory → clusters; below them the live sessions.
import { byId, el, show, state } from './dom.js';
import { bytes, counted, duration, number } from './format.js';

/** Shows a status report. @param {object} status @param {(member: string) => void} kill */
export function showStatus(status, kill) {
  const { totals, replies } = status;
  const isComplete = replies.replied === replies.asked;
  show(byId('verdict'), [
    status.verdict === 'ok' ? state('ok', 'all well') : state('bad', `degraded: ${counted(status.findings.length, 'finding')}`),
  ]);
  show(byId('tiles'), [
    tile('Sessions', number(totals.sessions)),
    tile('Accounts', number(totals.accounts)),
    tile('Replica lag', duration(totals.replicaLagMs)),
    tile('Queued mail', number(totals.queued)),
    tile('Nodes replying', `${replies.replied} of ${replies.asked}`, isComplete ? undefined : state('bad', 'incomplete')),
  ]);
  show(byId('findings'), status.findings.map(finding));
  show(byId('subsets'), [el('h2', {}, 'Frontend subsets'), ...orNone(status.subsets.map(subsetCard), 'No frontend has answered.')]);
  show(byId('directories'), [el('h2', {}, 'Directory'), ...orNone(directoryCards(status), 'No directory server has answered.')]);
  show(byId('clusters'), [
    el('h2', {}, 'Dynamic clusters'),
    ...orNone(
      status.clusters.map((cluster) => clusterCard(cluster, status.abilities.killMember ? kill : undefined)),
      'No member has answered.',
    ),
  ]);
}

/** Shows the live sessions. @param {object} report @param {number} atMs the server's clock */
export function showSessions(report, atMs) {
  const head = ['Account', 'Protocol', 'Client', 'Frontend', 'Cluster', 'Member', 'Since', 'In', 'Out', 'Session'];
  const isNumber = (title) => ['Since', 'In', 'Out'].includes(title);
  const rows = report.sessions.map((session) =>
    el(
      'tr',
      {},
      ...[
        session.account,
        session.protocol,
        session.clientAddress,
        session.frontend,
        session.cluster,
        session.member,
        duration(Math.max(0, atMs - session.startedAtMs)),
        bytes(session.bytesIn),
        bytes(session.bytesOut),
        session.sessionId,
      ].map((text, index) => el(isNumber(head[index]) ? 'td.number' : 'td', {}, text)),
    ),
  );
  const shown =
    report.sessions.length < report.total
      ? `${number(report.sessions.length)} of ${number(report.total)}, newest first`
      : number(report.total);
  show(byId('sessions'), [
    el(
      'div.card',
      {},
      el('h2', {}, `Live sessions: ${shown}`),
      rows.length === 0
        ? el('div.faint', {}, 'Nobody is logged in at this moment.')
        : el(
            'div.scroll',
            {},
            el(
              'table',
              {},
              el('thead', {}, el('tr', {}, ...head.map((title) => el(isNumber(title) ? 'th.number' : 'th', { scope: 'col' }, title)))),
              el('tbody', {}, ...rows),
            ),
          ),
    ),
  ]);
}

function tile(title, value, note) {
  return el('div.tile', {}, el('span.faint', {}, title), el('b', {}, value), note);
}

function finding(each) {
  const isFailure = each.severity === 'failure';
  return el(
    `div.finding.${each.severity}`,
    {},
    state(isFailure ? 'bad' : 'warn', each.severity),
    el('span', {}, el('b', {}, each.about), ` ${each.what}`),
    el('span.faint', {}, `→ ${each.fix}`),
  );
}

function subsetCard(subset) {
  const ready = subset.frontends.filter((frontend) => frontend.ready).length;
  return el(
    'div.card',
    {},
    el(
      'h3',
      {},
      subset.name,
      el(
        'small',
        {},
        `${subset.region === undefined ? '' : `region ${subset.region}, `}${ready} of ${subset.frontends.length} ready, ${counted(subset.sessions, 'session')}`,
      ),
    ),
    ...subset.frontends.map((frontend) =>
      server(
        frontend.name,
        frontend.ready ? state(frontend.state === 'ready' ? 'ok' : 'warn', frontend.state) : state('bad', 'not ready'),
        `${counted(frontend.sessionCount, 'session')}, ${number(frontend.logins.ok)} logins, ${number(frontend.logins.failed)} failed`,
        `${number(frontend.routes.accounts)} routes ${frontend.routes.state} ${frontend.routes.server}`,
        frontend.queue.messages > 0 &&
          `${counted(frontend.queue.messages, 'message')} queued, oldest ${duration(frontend.queue.oldestAgeMs)}`,
      ),
    ),
  );
}

function directoryCards(status) {
  const known = new Set(status.directories.map((directory) => directory.name));
  // A replica that is not ours, or whose process is silent, is still known to the replication service.
  const others = status.replicas.filter((replica) => !known.has(replica.name));
  const cards = [];
  if (status.directories.length + others.length > 0) {
    cards.push(
      el(
        'div.card',
        {},
        el('h3', {}, 'Servers', el('small', {}, counted(status.directories.length + others.length, 'server'))),
        ...status.directories.map((directory) =>
          server(
            directory.name,
            directoryState(directory),
            `${number(directory.accounts)} accounts, change ${number(directory.lastChangeNumber)}, ${counted(directory.followers, 'follower')}`,
            lagText(directory),
          ),
        ),
        ...others.map((replica) => server(replica.name, replicaState(replica.state), replica.url, lagText(replica))),
      ),
    );
  }
  for (const service of status.replication) {
    const fed = status.replicas.filter((replica) => replica.service === service.name);
    cards.push(
      el(
        'div.card',
        {},
        el('h3', {}, 'Replication', el('small', {}, service.name)),
        server('from the master', replicaState(service.master.state), service.master.url, service.master.lastError),
        ...fed.map((replica) =>
          server(
            `to ${replica.name}`,
            replicaState(replica.state),
            `lag ${duration(replica.lagMs)}, ${counted(replica.backlogChanges, 'change')} waiting, ${counted(replica.conflicts, 'conflict')}`,
            replica.lastError,
          ),
        ),
      ),
    );
  }
  return cards;
}

/** From where on the API calls a replica behind; the same figure is in its findings. */
const behindMs = 30_000;

function directoryState({ ready, mode, lagMs }) {
  if (!ready) return state('bad', `${mode}, not ready`);
  return lagMs !== undefined && lagMs > behindMs ? state('warn', `${mode}, behind`) : state('ok', mode);
}

function lagText(directory) {
  return directory.lagMs === undefined
    ? undefined
    : `lag ${duration(directory.lagMs)}, ${counted(directory.backlogChanges ?? 0, 'change')} waiting`;
}

function replicaState(word) {
  return state(word === 'following' || word === 'connected' ? 'ok' : word === 'stopped' ? 'bad' : 'warn', word);
}

function clusterCard(cluster, kill) {
  return el(
    'div.card',
    {},
    el(
      'h3',
      {},
      cluster.name,
      el('small', {}, `${counted(cluster.accounts, 'account')}, ${counted(cluster.sessions, 'session')}, term ${cluster.term}`),
    ),
    cluster.controller === undefined && state('bad', 'no Controller'),
    ...cluster.disagreement.map((other) => state('warn', other)),
    ...cluster.members.map((member) =>
      server(
        el('span', {}, member.name, member.isController && el('span.crown', { title: 'Controller' }, ' ♛ Controller')),
        memberState(member.state),
        member.state !== 'dead' && `${counted(member.openAccounts, 'open account')}, ${counted(member.sessions, 'session')}`,
        member.storage,
        ...member.disagreement,
        kill !== undefined &&
          member.state === 'active' &&
          el('button.quiet.small', { type: 'button', 'data-focus': `kill ${member.name}`, onclick: () => kill(member.name) }, 'Kill it'),
      ),
    ),
  );
}

function memberState(word) {
  return state(word === 'active' ? 'ok' : word === 'dead' ? 'bad' : 'warn', word);
}

function server(name, badge, ...lines) {
  return el(
    'div.server',
    {},
    el('span.name', {}, name),
    badge,
    ...lines
      .filter((line) => line !== undefined && line !== false && line !== '')
      .map((line) => (typeof line === 'string' ? el('span.faint', {}, line) : line)),
  );
}

function orNone(cards, text) {
  return cards.length > 0 ? cards : [el('div.card.faint', {}, text)];
}
