/**
 * Tries, at start, everything that the safety of accounts rests on: that a name can be taken once only, that a write loses its source
 * with its staging directory, that what was made is seen, and that directories can be made durable. A store that fails is refused with
 * what to change, because on such storage mail would be lost later and silently.
 */
import type { Clock } from '#common/clock.ts';
import { messageOf, PlatformError } from '#common/errors/platform-error.ts';
import { errnoOf, type Files } from '#common/files/files.ts';
import type { Random } from '#common/random.ts';
import type { ProbeResult } from './account-store.ts';
import { isFull, storageFailure } from './failures.ts';
import { judgeMount, mountOf } from './mount-rules.ts';

/** Free space that must be there. */
const roomBytes = 1024 * 1024;
const mountTable = '/proc/self/mounts';

/** What the probe is given. */
export interface ProbeOptions {
  readonly files: Files;
  readonly clock: Clock;
  readonly random: Random;
  readonly root: string;
}

interface Check {
  /** What should hold, in words. */
  readonly claim: string;
  /** What to do when it does not. */
  readonly remedy: string;
  /** `true`, or what was seen instead. */
  run(): Promise<true | string>;
}

/** See `AccountStore.probe`. */
export async function probeStore(options: ProbeOptions): Promise<ProbeResult> {
  const { files, clock, random, root } = options;
  const startedMs = clock.monotonicMs();
  const { dangers, warnings } = await mountVerdict(files, root);
  if (dangers.length > 0) throw new PlatformError('STORE_UNSAFE', `the storage at ${root} is not safe: ${dangers.join('; ')}`);

  const directory = `${root}/cluster/tmp/probe-${random.uuid()}`;
  const checks: string[] = [];
  try {
    await files.mkdirAll(directory);
    for (const { claim, remedy, run } of probeChecks(files, directory, random)) {
      const seen = await run();
      if (seen !== true)
        throw new PlatformError('STORE_UNSAFE', `the storage at ${root} is not safe: expected that ${claim}; ${seen}. ${remedy}`);
      checks.push(claim);
    }
  } catch (error) {
    if (isFull(error)) {
      throw new PlatformError('STORE_FULL', `the storage at ${root} has no room for ${roomBytes} bytes more`, { cause: error });
    }
    throw storageFailure(error, directory);
  } finally {
    // What stays of a failed probe is found by its name and harms nobody.
    await files.removeTree(directory).catch(() => {});
  }
  return { checks, warnings, durationMs: clock.monotonicMs() - startedMs };
}

function probeChecks(files: Files, directory: string, random: Random): Check[] {
  const at = (name: string): string => `${directory}/${name}`;
  const noLinks = 'Use a file system with atomic hard links: a local disk, NFS 4.1 or higher, or CephFS.';
  const noCache = 'Turn off caching of names and attributes for this mount (NFS: lookupcache=none).';
  return [
    {
      claim: 'a name that was missing is seen once it is made',
      remedy: noCache,
      async run() {
        const before = await outcome(files.read(at('late')));
        await files.writeNew(at('late'), [Buffer.from('here')]);
        const after = await outcome(files.read(at('late')).then((bytes) => bytes.toString()));
        return before === 'ENOENT' && after === 'here' ? true : `reading it gave ${before} and then ${after}`;
      },
    },
    {
      claim: 'a second create of the same name fails',
      remedy: noLinks,
      run: async () => expected('EEXIST', await outcome(files.writeNew(at('late'), [Buffer.from('again')]))),
    },
    {
      claim: 'a link to a name that is taken fails and leaves it as it was',
      remedy: noLinks,
      async run() {
        await files.writeNew(at('first'), [Buffer.from('first')]);
        await files.writeNew(at('second'), [Buffer.from('second')]);
        await files.link(at('first'), at('claimed'));
        const again = await outcome(files.link(at('second'), at('claimed')));
        const content = (await files.read(at('claimed'))).toString();
        return again === 'EEXIST' && content === 'first' ? true : `linking gave ${again} and the file holds "${content}"`;
      },
    },
    {
      claim: 'of many links to one name at the same time exactly one succeeds',
      remedy: noLinks,
      async run() {
        const racers = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
        for (const racer of racers) await files.writeNew(at(`racer-${racer}`), [Buffer.from(racer)]);
        const outcomes = await Promise.all(racers.map((racer) => outcome(files.link(at(`racer-${racer}`), at('race')))));
        const winners = outcomes.filter((one) => one === 'done').length;
        const others = outcomes.filter((one) => one === 'EEXIST').length;
        return winners === 1 && others === racers.length - 1 ? true : `the answers were ${outcomes.join(', ')}`;
      },
    },
    {
      claim: 'a directory with files in it is not removed',
      remedy: noLinks,
      async run() {
        await files.mkdir(at('stage'));
        await files.writeNew(at('stage/1'), [Buffer.from('pending')]);
        const answer = await outcome(files.rmdir(at('stage')));
        return answer === 'ENOTEMPTY' || answer === 'EEXIST' ? true : `removing it gave ${answer}`;
      },
    },
    {
      claim: 'nothing can be made from, or in, a staging directory that was removed',
      remedy: noCache,
      async run() {
        await files.unlink(at('stage/1'));
        await files.rmdir(at('stage'));
        const linked = await outcome(files.link(at('stage/1'), at('from-removed')));
        const written = await outcome(files.writeNew(at('stage/2'), [Buffer.from('late')]));
        const isRefused = (answer: string): boolean => answer === 'ENOENT' || answer === 'ESTALE';
        return isRefused(linked) && isRefused(written) ? true : `linking gave ${linked} and writing gave ${written}`;
      },
    },
    {
      claim: 'a rename replaces a file at once',
      remedy: noCache,
      async run() {
        await files.rename(at('second'), at('first'));
        const content = (await files.read(at('first'))).toString();
        const old = await outcome(files.read(at('second')));
        return content === 'second' && old === 'ENOENT' ? true : `the file holds "${content}" and its old name gives ${old}`;
      },
    },
    {
      claim: 'a listing shows what is there',
      remedy: noCache,
      async run() {
        const names = await files.list(directory);
        const isRight = names.includes('claimed') && names.includes('race') && !names.includes('second') && !names.includes('stage');
        return isRight ? true : `it shows ${names.sort().join(', ')}`;
      },
    },
    {
      claim: 'a directory can be made durable',
      remedy: 'Use a file system on which a directory can be fsynced.',
      run: async () => expected('done', await outcome(files.syncDirectory(directory))),
    },
    {
      claim: 'there is room, and what was written is read back',
      remedy: 'Check the disk: it returns other bytes than were written.',
      async run() {
        const bytes = random.bytes(4096);
        await files.writeNew(
          at('room'),
          Array.from({ length: roomBytes / bytes.length }, () => bytes),
        );
        const back = await files.readRange(at('room'), roomBytes - bytes.length, bytes.length);
        return back.equals(bytes) ? true : 'other bytes came back';
      },
    },
  ];
}

async function mountVerdict(
  files: Files,
  root: string,
): Promise<{ readonly dangers: readonly string[]; readonly warnings: readonly string[] }> {
  let table: string;
  try {
    table = (await files.read(mountTable)).toString('utf8');
  } catch (error) {
    return { dangers: [], warnings: [`${mountTable} cannot be read (${messageOf(error)}): the mount options were not looked at`] };
  }
  const mount = mountOf(table, root);
  return mount === undefined ? { dangers: [], warnings: [`${mountTable} does not show what ${root} is on`] } : judgeMount(mount);
}

/** What came of an operation, in one word: the error's code, the text it gave, or `done`. Out of room stays an error. */
async function outcome(work: Promise<unknown>): Promise<string> {
  try {
    const value = await work;
    return typeof value === 'string' ? value : 'done';
  } catch (error) {
    if (isFull(error)) throw error;
    return errnoOf(error) ?? messageOf(error);
  }
}

function expected(wanted: string, seen: string): true | string {
  return seen === wanted ? true : `it gave ${seen}`;
}
