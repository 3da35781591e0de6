/**
 * What a Sieve script means: checked as a whole, then run on messages. RFC 5228 with fileinto and envelope, copy (RFC 3894) and imap4flags (RFC 5232,
 * without variables).
 *
 * What always holds: a script that was compiled runs to its end in bounded time, or is given up; when it does nothing with a message, the message is
 * kept.
 *
 * `redirect`, which RFC 5228 §4.2 has among the base, is refused when the script is stored: a member sends no mail.
 */
import { comparators, type Matcher, matcherOf, matchTypes } from './match.ts';
import type { SieveMessage } from './message.ts';
import { parseScript, type SieveArgument, type SieveCommand, SieveError, type SieveTest } from './parse.ts';

/** Extensions that run, as the SIEVE capability names them. Comparators of the base need not be required. */
export const sieveExtensions: readonly string[] = [
  'comparator-i;octet',
  'comparator-i;ascii-casemap',
  'copy',
  'envelope',
  'fileinto',
  'imap4flags',
];

/** Places one message may be filed into. */
export const actionsMax = 32;
/** Pairs of characters that one run compares; beyond, the message is kept as if there were no script. */
const comparisonsMax = 50_000_000;

/** What is to be done with a message. */
export interface SieveOutcome {
  /** Where it goes, each place once; `undefined` is INBOX by `keep`. Empty: it is discarded. */
  readonly places: readonly { readonly mailbox: string | undefined; readonly flags: readonly string[] }[];
}

/** A script that may run. */
export interface SieveProgram {
  /** Throws `SieveError` when it would take too long. */
  run(message: SieveMessage): SieveOutcome;
}

/** One script at one message. */
class Run {
  readonly message: SieveMessage;
  readonly places = new Map<string, { readonly mailbox: string | undefined; readonly flags: readonly string[] }>();
  flags: readonly string[] = [];
  keepsImplicitly = true;
  isStopped = false;
  #budget = comparisonsMax;

  constructor(message: SieveMessage) {
    this.message = message;
  }

  anyMatch(values: readonly string[], keys: readonly string[], matches: Matcher): boolean {
    return values.some((value) =>
      keys.some((key) => {
        // At most that many characters are compared: `:matches` may try each of the one at each of the other.
        this.#budget -= 1 + value.length * (1 + key.length);
        if (this.#budget < 0) throw new SieveError(1, 'the script compares too much on this message');
        return matches(value, key);
      }),
    );
  }
}
type Step = (run: Run) => void;
type Test = (run: Run) => boolean;

/** RFC 5228 §5.1: fields that have addresses. */
const addressFields = new Set(
  'from to cc bcc sender reply-to resent-from resent-to resent-cc resent-bcc resent-sender resent-reply-to delivered-to return-path errors-to'.split(
    ' ',
  ),
);
const fieldNamePattern = /^[!-9;-~]+$/;

/** Checks a script. Throws `SieveError`. */
export function compileScript(text: string): SieveProgram {
  const compiler = new Compiler();
  const steps = compiler.block(parseScript(text), true);
  return {
    run(message) {
      const run = new Run(message);
      perform(steps, run);
      // RFC 5228 §2.10.2; RFC 5232 §5: with the flags that the script has come to.
      if (run.keepsImplicitly) place(run, undefined, run.flags);
      return { places: [...run.places.values()] };
    },
  };
}

function perform(steps: readonly Step[], run: Run): void {
  for (const step of steps) {
    if (run.isStopped) return;
    step(run);
  }
}

function place(run: Run, mailbox: string | undefined, flags: readonly string[]): void {
  const key = mailbox === undefined || mailbox.toUpperCase() === 'INBOX' ? '' : mailbox;
  // Filed twice is filed once (RFC 5228 §2.10.3), with what it was filed with last.
  if (run.places.size < actionsMax || run.places.has(key)) run.places.set(key, { mailbox: key === '' ? undefined : mailbox, flags });
}

class Compiler {
  readonly #required = new Set<string>();

  block(commands: readonly SieveCommand[], isTop: boolean): Step[] {
    const steps: Step[] = [];
    let mayRequire = isTop;
    for (let at = 0; at < commands.length; at += 1) {
      const command = commands[at] as SieveCommand;
      if (command.name === 'require') {
        // RFC 5228 §3.2
        if (!mayRequire) throw new SieveError(command.line, '"require" comes before all other commands');
        this.#require(command);
        continue;
      }
      mayRequire = false;
      if (command.name === 'if') {
        const branches = [command];
        while (commands[at + 1]?.name === 'elsif' || commands[at + 1]?.name === 'else') {
          at += 1;
          branches.push(commands[at] as SieveCommand);
          if (commands[at]?.name === 'else') break;
        }
        steps.push(this.#choice(branches));
      } else if (command.name === 'elsif' || command.name === 'else') {
        throw new SieveError(command.line, `"${command.name}" has no "if" before it`);
      } else steps.push(this.#action(command));
    }
    return steps;
  }

  #require(command: SieveCommand): void {
    const [names] = new Arguments(command).positional('strings');
    noBlock(command);
    for (const name of names.values) {
      if (!sieveExtensions.includes(name)) throw new SieveError(names.line, `the extension "${name}" is not offered here`);
      this.#required.add(name);
    }
  }

  #need(extension: string, what: string, line: number): void {
    if (!this.#required.has(extension)) throw new SieveError(line, `${what} needs: require "${extension}";`);
  }

  // RFC 5228 §3.1
  #choice(commands: readonly SieveCommand[]): Step {
    const branches = commands.map((command) => {
      if (command.arguments.length > 0) throw new SieveError(command.line, `"${command.name}" takes a test`);
      if (command.tests.length !== (command.name === 'else' ? 0 : 1)) {
        throw new SieveError(command.line, command.name === 'else' ? '"else" takes no test' : `"${command.name}" takes one test`);
      }
      if (command.block === undefined) throw new SieveError(command.line, `"${command.name}" takes a block`);
      const [test] = command.tests;
      return { holds: test === undefined ? () => true : this.#test(test), steps: this.block(command.block, false) };
    });
    return (run) => {
      const chosen = branches.find(({ holds }) => holds(run));
      if (chosen !== undefined) perform(chosen.steps, run);
    };
  }

  #action(command: SieveCommand): Step {
    noBlock(command);
    if (command.tests.length > 0) throw new SieveError(command.line, `"${command.name}" takes no test`);
    const given = new Arguments(command);
    switch (command.name) {
      case 'stop': // RFC 5228 §3.3
        given.positional();
        return (run) => {
          run.isStopped = true;
        };
      case 'discard': // RFC 5228 §4.4
        given.positional();
        return (run) => {
          run.keepsImplicitly = false;
        };
      case 'keep': {
        // RFC 5228 §4.3
        const flags = this.#flagsTag(given);
        given.positional();
        return (run) => {
          run.keepsImplicitly = false;
          place(run, undefined, flags ?? run.flags);
        };
      }
      case 'fileinto': {
        // RFC 5228 §4.1
        this.#need('fileinto', '"fileinto"', command.line);
        const flags = this.#flagsTag(given);
        const isCopy = given.tag('copy') !== undefined;
        if (isCopy) this.#need('copy', '":copy"', command.line);
        const [mailbox] = given.positional('string');
        if (mailbox === '') throw new SieveError(command.line, '"fileinto" takes the name of a mailbox');
        return (run) => {
          // RFC 3894 §3: a copy leaves the implicit keep as it is.
          if (!isCopy) run.keepsImplicitly = false;
          place(run, mailbox, flags ?? run.flags);
        };
      }
      case 'setflag':
      case 'addflag':
      case 'removeflag': {
        // RFC 5232 §3
        this.#need('imap4flags', `"${command.name}"`, command.line);
        const [list] = given.positional('strings');
        const flags = flagsOf(list.values, list.line);
        const named = new Set(flags.map((flag) => flag.toLowerCase()));
        return (run) => {
          const others = command.name === 'setflag' ? [] : run.flags.filter((flag) => !named.has(flag.toLowerCase()));
          run.flags = command.name === 'removeflag' ? others : [...others, ...flags];
        };
      }
      case 'redirect':
        throw new SieveError(command.line, '"redirect" does not run here: this server forwards no mail');
      default:
        throw new SieveError(command.line, `the command "${command.name}" is not known here, or needs an extension that is not offered`);
    }
  }

  #flagsTag(given: Arguments): readonly string[] | undefined {
    const list = given.tagWith('flags');
    if (list === undefined) return undefined;
    this.#need('imap4flags', '":flags"', list.line);
    return flagsOf(list.values, list.line);
  }

  #test(test: SieveTest): Test {
    const given = new Arguments(test);
    if (test.name !== 'not' && test.name !== 'allof' && test.name !== 'anyof' && test.tests.length > 0) {
      throw new SieveError(test.line, `"${test.name}" takes no tests`);
    }
    switch (test.name) {
      case 'true':
      case 'false': {
        given.positional();
        const value = test.name === 'true';
        return () => value;
      }
      case 'not':
      case 'allof':
      case 'anyof': {
        given.positional();
        const isNot = test.name === 'not';
        if (isNot ? test.tests.length !== 1 : test.tests.length === 0) {
          throw new SieveError(test.line, `"${test.name}" takes ${isNot ? 'one test' : 'tests'}`);
        }
        const tests = test.tests.map((one) => this.#test(one));
        if (isNot) return (run) => !(tests[0] as Test)(run);
        return test.name === 'allof' ? (run) => tests.every((holds) => holds(run)) : (run) => tests.some((holds) => holds(run));
      }
      case 'exists': {
        // RFC 5228 §5.5
        const [names] = given.positional('strings');
        const fields = fieldNames(names);
        return ({ message }) => fields.every((name) => message.values(name).length > 0);
      }
      case 'size': {
        // RFC 5228 §5.9
        const isOver = given.tag('over') !== undefined;
        if (isOver === (given.tag('under') !== undefined)) throw new SieveError(test.line, '"size" takes :over or :under');
        const [limit] = given.positional('number');
        return ({ message }) => (isOver ? message.sizeBytes > limit : message.sizeBytes < limit);
      }
      case 'header': {
        // RFC 5228 §5.7
        const matches = this.#matcher(given);
        const [names, keys] = given.positional('strings', 'strings');
        const fields = fieldNames(names);
        return (run) => fields.some((name) => run.anyMatch(run.message.values(name), keys.values, matches));
      }
      case 'address': {
        // RFC 5228 §5.1
        const matches = this.#matcher(given);
        const part = addressPart(given);
        const [names, keys] = given.positional('strings', 'strings');
        const fields = fieldNames(names);
        const other = fields.find((name) => !addressFields.has(name));
        if (other !== undefined) throw new SieveError(names.line, `"address" looks at fields with addresses, and "${other}" is none`);
        return (run) => fields.some((name) => run.anyMatch(run.message.addresses(name).map(part), keys.values, matches));
      }
      case 'envelope': {
        // RFC 5228 §5.4
        this.#need('envelope', '"envelope"', test.line);
        const matches = this.#matcher(given);
        const part = addressPart(given);
        const [names, keys] = given.positional('strings', 'strings');
        const parts = names.values.map((name) => name.toLowerCase());
        const other = parts.find((name) => name !== 'from' && name !== 'to');
        if (other !== undefined) throw new SieveError(names.line, `"envelope" knows "from" and "to", and not "${other}"`);
        return (run) => parts.some((name) => run.anyMatch([part(run.message.envelope(name as 'from' | 'to'))], keys.values, matches));
      }
      case 'hasflag': {
        // RFC 5232 §4
        this.#need('imap4flags', '"hasflag"', test.line);
        const matches = this.#matcher(given);
        const [keys] = given.positional('strings');
        const wanted = keys.values.flatMap((value) => value.split(' ').filter((word) => word !== ''));
        return (run) => run.anyMatch(run.flags, wanted, matches);
      }
      default:
        throw new SieveError(test.line, `the test "${test.name}" is not known here, or needs an extension that is not offered`);
    }
  }

  #matcher(given: Arguments): Matcher {
    const types = matchTypes.filter((type) => given.tag(type) !== undefined);
    if (types.length > 1) throw new SieveError(given.line, `one of ${types.map((type) => `:${type}`).join(' and ')}, not both`);
    const comparator = given.tagWith('comparator');
    const name = comparator === undefined ? 'i;ascii-casemap' : (comparator.values[0] as string);
    if (!comparators.includes(name)) throw new SieveError(given.line, `the comparator "${name}" is not offered here`);
    return matcherOf(types[0] ?? 'is', name);
  }
}

/** Arguments of a command or test, taken one after the other; what is left over is a mistake. */
class Arguments {
  readonly line: number;
  readonly #of: SieveTest;
  readonly #left: SieveArgument[];

  constructor(of: SieveTest) {
    this.#of = of;
    this.line = of.line;
    this.#left = [...of.arguments];
  }

  /** Takes a tag, if it is there. */
  tag(name: string): true | undefined {
    const at = this.#find(name);
    if (at < 0) return undefined;
    this.#left.splice(at, 1);
    return true;
  }

  /** Takes a tag with the strings that follow it. */
  tagWith(name: string): Extract<SieveArgument, { kind: 'strings' }> | undefined {
    const at = this.#find(name);
    if (at < 0) return undefined;
    const [, value] = this.#left.splice(at, 2);
    if (value?.kind !== 'strings') throw new SieveError(this.line, `":${name}" takes a string`);
    return value;
  }

  /** Takes the arguments that have no tags, which must be these and no others. */
  positional(): [];
  positional(kind: 'string'): [string];
  positional(kind: 'number'): [number];
  positional(kind: 'strings'): [Strings];
  positional(first: 'strings', second: 'strings'): [Strings, Strings];
  positional(...kinds: readonly ('string' | 'strings' | 'number')[]): unknown[] {
    const stray = this.#left.find(({ kind }) => kind === 'tag');
    if (stray?.kind === 'tag') throw new SieveError(stray.line, `"${this.#of.name}" has no :${stray.name}, or has it twice`);
    const fits = kinds.every((kind, at) => {
      const argument = this.#left[at];
      return kind === 'number' ? argument?.kind === 'number' : argument?.kind === 'strings' && (kind === 'strings' || !argument.isList);
    });
    if (!fits || this.#left.length !== kinds.length) {
      const wanted = kinds.map((kind) => ({ string: 'a string', strings: 'a string or a list of strings', number: 'a number' })[kind]);
      throw new SieveError(this.line, `"${this.#of.name}" takes ${wanted.length === 0 ? 'no arguments' : wanted.join(' and ')}`);
    }
    return this.#left.map((argument, at) => {
      if (argument.kind === 'number') return argument.value;
      return kinds[at] === 'string' && argument.kind === 'strings' ? argument.values[0] : argument;
    });
  }

  #find(name: string): number {
    return this.#left.findIndex((argument) => argument.kind === 'tag' && argument.name === name);
  }
}

type Strings = Extract<SieveArgument, { kind: 'strings' }>;

function noBlock(command: SieveCommand): void {
  if (command.block !== undefined) throw new SieveError(command.line, `"${command.name}" takes no block`);
}

function fieldNames(names: Strings): string[] {
  return names.values.map((name) => {
    if (!fieldNamePattern.test(name)) throw new SieveError(names.line, `"${name}" is no name of a header field`);
    return name.toLowerCase();
  });
}

/** RFC 5228 §2.7.4. */
function addressPart(given: Arguments): (address: string) => string {
  const parts = ['localpart', 'domain', 'all'].filter((part) => given.tag(part) !== undefined);
  if (parts.length > 1) throw new SieveError(given.line, `one of ${parts.map((part) => `:${part}`).join(' and ')}, not both`);
  const [part = 'all'] = parts;
  return (address) => {
    const at = address.lastIndexOf('@');
    if (part === 'all') return address;
    return part === 'localpart' ? address.slice(0, at < 0 ? undefined : at) : at < 0 ? '' : address.slice(at + 1);
  };
}

/** RFC 5232 §2: a string may hold several. What no message can have is a mistake of the script. */
function flagsOf(values: readonly string[], line: number): string[] {
  const flags = new Map<string, string>();
  for (const flag of values.flatMap((value) => value.split(' ')).filter((word) => word !== '')) {
    if (!/^(?:\\(?:seen|answered|flagged|deleted|draft)|[!#$&'+,\-./0-9:;<=>?@A-Z[^_`a-z|}~]{1,100})$/i.test(flag)) {
      throw new SieveError(line, `"${flag}" is neither a system flag nor a keyword`);
    }
    flags.set(flag.toLowerCase(), flag);
  }
  if (flags.size > 32) throw new SieveError(line, 'more than 32 flags');
  return [...flags.values()];
}
