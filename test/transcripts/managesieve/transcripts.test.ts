import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { serveManageSieve } from '#backend-cluster/sessions/managesieve/server.ts';
import { parseAccountName } from '#common/account-name.ts';
import { silentLogger } from '#common/log/logger.ts';
import { FakeClock } from '#test/fakes/clock.ts';
import { MemoryAccount } from '#test/fakes/memory-account.ts';
import { connectionPair } from '#test/fakes/memory-connection.ts';
import { seededRandom } from '#test/fakes/random.ts';
import { LineClient, playTranscript } from '../line-transcript.ts';

const files = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.txt'));

describe('ManageSieve as clients see it', () => {
  test('there are transcripts', () => expect(files.length).toBeGreaterThan(1));

  for (const name of files) {
    test(name.replace('.txt', '').replaceAll('-', ' '), async () => {
      const account = new MemoryAccount();
      const clock = new FakeClock();
      const [near, far] = connectionPair();
      const context = {
        sessionId: 's1',
        account,
        refresh: () => undefined,
        accountName: () => parseAccountName('alice@isp.example'),
        clientAddress: '127.0.0.1',
        clock,
        random: seededRandom(1),
        log: silentLogger,
      };
      let ended = 0;
      serveManageSieve(far, context, () => {
        ended += 1;
      });
      await playTranscript(readFileSync(`${import.meta.dirname}/${name}`, 'utf8'), new LineClient(near), async (action) => {
        if (action === 'depose') account.depose();
        else if (action === 'half an hour') await clock.advance(30 * 60_000);
        else throw new Error(`a transcript does what this test does not know: ${action}`);
      });
      near.destroy();
      await clock.advance(60_000);
      expect(ended).toBe(1);
    });
  }
});
