import { expect, it } from 'vitest';
import type { Change } from '#replication/pipeline.ts';
import { RefusedAgain } from '#replication/refused-again.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { seededRandom } from '#test/fakes/random.ts';

it('tries refused entries again while the replica follows, and not before', async () => {
  const clock = new FakeClock();
  const pushed: Change[] = [];
  const entry = { uuid: 'a', dn: 'cn=a,o=mail', reason: 'unknown class', sinceMs: 0 };
  let isFollowing = false;
  const again = new RefusedAgain(
    { clock, random: seededRandom(1) },
    { size: 1, list: () => [entry] },
    { hasRoom: true, isPending: () => false, push: (change) => pushed.push(change) },
    () => isFollowing,
  );
  again.tryFrom(0);
  await clock.advance(600_000);
  expect(pushed).toEqual([]);
  isFollowing = true;
  await clock.advance(1000);
  expect(pushed).toMatchObject([{ uuid: 'a', isCheck: true }]);
  again.cancel();
});
