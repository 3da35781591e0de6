import { expect, it } from 'vitest';
import type { FrontendStatus } from '#frontend/client/status.ts';
import type { RunningFrontend } from '#frontend/service.ts';
import { wholeFrontend } from '#frontend/subset/whole.ts';
import { FakeClock } from '../../fakes/clock.ts';
import { fakeFrontend } from '../../fakes/installation.ts';

it('a frontend of several processes shows connections to members of all of them', async () => {
  const status = fakeFrontend('front1.eu.isp.example', 'eu', 0).status() as FrontendStatus;
  const link = { member: 'back1.west.isp.example', isShared: true, connections: 1, sessions: 3, hits: 5, misses: 1, refused: 0 };
  const own = { ...status, links: [{ ...link, service: 'imap' }] };
  const helper = {
    ...status,
    links: [
      { ...link, service: 'imap', refused: 2 },
      { ...link, service: 'pop3' },
    ],
    processes: [{ pid: 7, version: '1', startedAtMs: 0, state: 'serving' as const, sessions: 0, connections: 0 }],
  };
  const whole = wholeFrontend({
    own: { status: () => own, succession: { isLeaving: false, leftMs: undefined }, connections: () => 0 } as unknown as RunningFrontend,
    clock: new FakeClock(),
    pid: 1,
    version: '1',
    parts: () => [{ pid: 7, isHelper: true, status: async () => helper, control: async () => undefined }],
    restart: async () => undefined,
  });
  await whole.refresh?.();
  expect((whole.status() as FrontendStatus).links).toEqual([
    { ...link, service: 'imap', connections: 2, sessions: 6, hits: 10, misses: 2, refused: 2 },
    { ...link, service: 'pop3' },
  ]);
});
