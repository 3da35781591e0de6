/**
 * A machine with at most one process on it. Whatever comes to a process from outside (a timer, bytes, an answer of the disk) passes
 * `deliver`: a paused process gets it when it goes on, a dead one never.
 */
import type { Clock, Timer } from '#common/clock.ts';
import type { Event, World } from './world.ts';

const wallStartMs = Date.UTC(2026, 0, 1);

/** What belongs to the machine and outlives its processes: its clock's error. */
export class Machine {
  readonly name: string;
  readonly host: string;
  readonly world: World;
  /** The wall clock's error, and how fast both clocks run. */
  wallOffsetMs = 0;
  #rate = 1;
  #rateSinceMs = 0;
  #elapsedMs = 0;
  #frozenAtMs: number | undefined;
  process: SimProcess | undefined;

  constructor(world: World, name: string, host: string) {
    this.world = world;
    this.name = name;
    this.host = host;
  }

  /** Time on this machine's oscillator since the beginning; stands still while the machine is suspended. */
  localMs(): number {
    const until = this.#frozenAtMs ?? this.world.nowMs;
    return this.#elapsedMs + (until - this.#rateSinceMs) * this.#rate;
  }

  wallMs(): number {
    return wallStartMs + this.wallOffsetMs + this.localMs();
  }

  get rate(): number {
    return this.#rate;
  }

  setRate(rate: number): void {
    this.#elapsedMs = this.localMs();
    this.#rateSinceMs = this.#frozenAtMs ?? this.world.nowMs;
    this.#rate = rate;
  }

  /** As a virtual machine that is suspended: the monotonic clock does not count the time. */
  suspend(): void {
    this.process?.pause();
    this.#frozenAtMs ??= this.world.nowMs;
  }

  wake(): void {
    if (this.#frozenAtMs === undefined) return;
    this.#elapsedMs = this.localMs();
    this.wallOffsetMs += this.world.nowMs - this.#frozenAtMs;
    this.#rateSinceMs = this.world.nowMs;
    this.#frozenAtMs = undefined;
    this.process?.resume();
  }

  /** Nothing runs here then. */
  get isSuspended(): boolean {
    return this.#frozenAtMs !== undefined;
  }
}

/** One run of a process. */
export class SimProcess {
  readonly machine: Machine;
  readonly world: World;
  /** What its timers are called in the trace. */
  readonly timerKind: string;
  isAlive = true;
  isPaused: boolean;
  /** Called once when it dies, for what its kernel does then. */
  readonly onDeath: (() => void)[] = [];
  #backlog: { what: string; happen: () => void }[] = [];

  constructor(machine: Machine) {
    this.machine = machine;
    this.world = machine.world;
    this.timerKind = `timer ${machine.name}`;
    this.isPaused = machine.isSuspended;
    machine.process = this;
  }

  deliver(what: string, happen: () => void): void {
    if (!this.isAlive) return;
    if (this.isPaused) this.#backlog.push({ what, happen });
    else happen();
  }

  pause(): void {
    this.isPaused = true;
  }

  /** What waited comes in any order of kinds: timers and bytes race after a SIGCONT. Bytes of one connection keep theirs, as each is taken from its pipe in turn. */
  resume(): void {
    if (!this.isPaused || this.machine.isSuspended) return;
    this.isPaused = false;
    const waiting = this.#backlog;
    this.#backlog = [];
    for (const { what, happen } of waiting) this.world.after(this.world.chance.between(0, 1), what, () => this.deliver(what, happen));
  }

  die(): void {
    if (!this.isAlive) return;
    this.isAlive = false;
    this.#backlog = [];
    for (const happen of this.onDeath.splice(0)) happen();
    if (this.machine.process === this) this.machine.process = undefined;
  }

  /** The clock port of this process. */
  readonly clock: Clock = {
    nowMs: () => this.machine.wallMs(),
    monotonicMs: () => this.machine.localMs(),
    after: (delayMs, fire) => this.#timer(delayMs, undefined, fire),
    every: (periodMs, fire) => this.#timer(periodMs, periodMs, fire),
  };

  #timer(delayMs: number, periodMs: number | undefined, fire: () => void): Timer {
    return new SimTimer(this, delayMs, periodMs, fire);
  }
}

/** A timer on a process's clock, whatever happens to that clock. */
class SimTimer implements Timer {
  readonly #process: SimProcess;
  readonly #periodMs: number | undefined;
  readonly #fire: () => void;
  #dueMs: number;
  #isCancelled = false;
  #event: Event;

  constructor(process: SimProcess, delayMs: number, periodMs: number | undefined, fire: () => void) {
    this.#process = process;
    this.#periodMs = periodMs;
    this.#fire = fire;
    this.#dueMs = process.machine.localMs() + Math.max(0, delayMs);
    this.#event = this.#plan();
  }

  cancel(): void {
    this.#isCancelled = true;
    this.#event.happen = undefined;
  }

  #plan(): Event {
    const process = this.#process;
    const { machine, world, timerKind } = process;
    const inMs = (this.#dueMs - machine.localMs()) / machine.rate;
    return world.after(inMs, timerKind, () => process.deliver(timerKind, () => this.#due()));
  }

  #due(): void {
    const { machine, isAlive } = this.#process;
    if (this.#isCancelled || !isAlive) return;
    // The clock may have been made slower, or have stood still: not due yet.
    if (machine.localMs() < this.#dueMs - 0.001) {
      this.#event = this.#plan();
      return;
    }
    if (this.#periodMs !== undefined) {
      this.#dueMs = machine.localMs() + this.#periodMs;
      this.#event = this.#plan();
    }
    this.#fire();
  }
}
