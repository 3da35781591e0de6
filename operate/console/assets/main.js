// The console's page: asks the admin API once a second and shows what it says, or since when it says nothing.
//
// What always holds: data older than ten seconds is grey and shows its age; a lost server shows a banner; nothing stays green by itself.
import { ApiError, api } from './api.js';
import { byId } from './dom.js';
import { duration } from './format.js';
import { showSessions, showStatus } from './overview.js';
import { startWhy } from './why.js';

const periodMs = 1000;
const staleAfterMs = 10_000;
const lostAfterMs = 3_000;
const sessionsShown = 100;

let isLoggedIn = false;
let lastAnswerAtMs;
let lastError;
let isAsking = false;

for (const id of ['tiles', 'findings', 'subsets', 'directories', 'clusters', 'sessions', 'verdict']) byId(id).classList.add('live');

async function ask() {
  if (isAsking) return;
  isAsking = true;
  try {
    const [status, sessions] = await Promise.all([api('/api/v1/status'), api(`/api/v1/sessions?limit=${sessionsShown}`)]);
    lastAnswerAtMs = performance.now();
    lastError = undefined;
    enter();
    document.title = status.verdict === 'ok' ? 'Archipelago' : `✖ ${status.findings.length} · Archipelago`;
    showStatus(status, kill);
    showSessions(sessions, status.atMs);
  } catch (error) {
    lastError = error;
    leaveIfLoggedOut(error);
  } finally {
    isAsking = false;
  }
}

function enter() {
  isLoggedIn = true;
  byId('login').hidden = true;
  byId('app').hidden = false;
}

function leaveIfLoggedOut(error) {
  if (!(error instanceof ApiError) || error.status !== 401) return;
  isLoggedIn = false;
  byId('app').hidden = true;
  byId('banner').hidden = true;
  if (byId('login').hidden) {
    byId('login').hidden = false;
    byId('password').focus();
  }
}

function showAge() {
  if (!isLoggedIn || lastAnswerAtMs === undefined) return;
  const ageMs = performance.now() - lastAnswerAtMs;
  byId('age').textContent = ageMs < 2 * periodMs ? 'live' : `as of ${duration(ageMs)} ago`;
  byId('app').classList.toggle('stale', ageMs > staleAfterMs);
  const banner = byId('banner');
  banner.hidden = ageMs < lostAfterMs;
  if (!banner.hidden) {
    const reason = lastError instanceof ApiError ? lastError.message : 'it cannot be reached';
    banner.textContent = `✖ No answer from this node for ${duration(ageMs)}: ${lastError === undefined ? 'still waiting' : reason}. What is shown is old.`;
  }
}

async function kill(member) {
  if (!window.confirm(`Kill ${member} as if its power had failed? Its accounts move to the other members.`)) return;
  try {
    await api(`/api/v1/members/${encodeURIComponent(member)}/kill`, { method: 'POST' });
  } catch (error) {
    leaveIfLoggedOut(error);
    window.alert(`${member} was not killed: ${error.message}`);
  }
}

byId('login-form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const field = byId('password');
  byId('login-error').textContent = '';
  try {
    await api('/api/v1/login', { method: 'POST', body: { password: field.value.trim() } });
    field.value = '';
    await ask();
  } catch (error) {
    byId('login-error').textContent = error instanceof ApiError && error.status === 401 ? 'That is not the password.' : error.message;
  }
});

byId('logout').addEventListener('click', async () => {
  await api('/api/v1/logout', { method: 'POST' }).catch(() => {});
  await ask();
});

startWhy(leaveIfLoggedOut);
await ask();
setInterval(() => {
  if (isLoggedIn && !document.hidden) void ask();
}, periodMs);
setInterval(showAge, 500);
// A page that was in the background catches up as soon as it is looked at.
document.addEventListener('visibilitychange', () => {
  if (isLoggedIn && !document.hidden) void ask();
});
