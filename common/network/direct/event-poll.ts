/**
 * Tells sockets of ours what the system has for them: one epoll set, which libuv watches together with everything else in the event loop.
 *
 * libuv's callback comes at a moment when no JavaScript may run to its end (nothing drains promises after it), so it only asks for `setImmediate`,
 * which is called next, before the loop waits again. Events are edges: a socket notes that it can be read or written and reads until it has
 * nothing left, at most once a turn, so that a fast peer keeps nobody else waiting; what it leaves is taken up in the next turn (`again`).
 */
import { epollDataAt, epollEventBytes, linux, type SystemCalls, systemCalls } from './system-calls.ts';

/** A socket in the set. Its methods must not throw for what a peer does; if one does throw, that reaches the process and concerns nobody else. */
export interface PolledSocket {
  /** Events of the system, as `linux.epoll…`. */
  onEvents(events: number): void;
  /** Asked for by `again`. */
  onTurn(): void;
}

/** Events that are taken in one turn. */
const eventsPerTurn = 512;
/** `uv_poll` in libuv’s enumeration of handle types. */
const uvPollType = 8;
const uvReadable = 1;

/** See the header of this file. There is one in a process. */
export class EventPoll {
  readonly #calls: SystemCalls;
  readonly #epoll: number;
  readonly #sockets: (PolledSocket | undefined)[] = [];
  readonly #events = Buffer.alloc(epollEventBytes * eventsPerTurn);
  readonly #event = Buffer.alloc(epollEventBytes);
  #next: PolledSocket[] = [];
  #closing: number[] = [];
  #count = 0;
  #turns = 0;
  #isAsked = false;
  readonly #hold: (holds: boolean) => void;

  constructor(calls: SystemCalls) {
    this.#calls = calls;
    this.#epoll = calls.epollCreate(linux.epollCloseOnExec);
    if (this.#epoll < 0) throw new Error(`epoll_create1 failed with errno ${calls.errno()}`);
    this.#hold = watch(calls, this.#epoll, () => this.#ask());
  }

  /** Number of the turn that runs: promises that are settled in one are seen to before the next. */
  get turn(): number {
    return this.#turns;
  }

  /** Adds a socket; `events` without `epollEdge` are told for as long as they last. Returns whether the system took it. */
  add(fd: number, socket: PolledSocket, events: number): boolean {
    if (!this.#control(linux.epollAdd, fd, events)) return false;
    this.#sockets[fd] = socket;
    this.#count += 1;
    if (this.#count === 1) this.#hold(true);
    return true;
  }

  /** Changes what a socket is told. */
  change(fd: number, events: number): void {
    this.#control(linux.epollModify, fd, events);
  }

  /**
   * Takes the socket out. Its descriptor is closed when this turn is over, so that no event of it is taken for one of its successor's. `false` for
   * one that is not in the set.
   */
  close(fd: number): boolean {
    if (this.#sockets[fd] === undefined) return false;
    this.#sockets[fd] = undefined;
    this.#closing.push(fd);
    this.#ask();
    return true;
  }

  /** As `close`, for a socket that other processes may have as well: the set would keep it, and tell of it, until the last of them closes it. */
  closeShared(fd: number): void {
    if (this.close(fd)) this.#control(linux.epollDelete, fd, 0);
  }

  /** Events of this descriptor are another one's from now on. */
  replace(fd: number, socket: PolledSocket): void {
    this.#sockets[fd] = socket;
  }

  /** Calls `onTurn` soon, from the event loop. */
  again(socket: PolledSocket): void {
    this.#next.push(socket);
    this.#ask();
  }

  #control(operation: number, fd: number, events: number): boolean {
    this.#event.writeUInt32LE(events >>> 0, 0);
    this.#event.writeInt32LE(fd, epollDataAt);
    return this.#calls.epollControl(this.#epoll, operation, fd, this.#event) === 0;
  }

  #ask(): void {
    if (this.#isAsked) return;
    this.#isAsked = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#isAsked = false;
    this.#turns += 1;
    const next = this.#next;
    if (next.length > 0) {
      this.#next = [];
      for (const socket of next) guarded(socket, 0);
    }
    const count = this.#calls.epollWait(this.#epoll, this.#events, eventsPerTurn, 0);
    for (let i = 0; i < count; i += 1) {
      const at = i * epollEventBytes;
      const socket = this.#sockets[this.#events.readInt32LE(at + epollDataAt)];
      if (socket !== undefined) guarded(socket, this.#events.readUInt32LE(at));
    }
    if (this.#closing.length > 0) {
      for (const fd of this.#closing) this.#calls.close(fd);
      this.#count -= this.#closing.length;
      this.#closing = [];
      if (this.#count === 0) this.#hold(false);
    }
  };
}

function guarded(socket: PolledSocket, events: number): void {
  try {
    if (events === 0) socket.onTurn();
    else socket.onEvents(events);
  } catch (error) {
    // As Node does with what a listener throws, but the others of this turn get their events.
    setImmediate(() => {
      throw error;
    });
  }
}

/** Has libuv watch the set. Returns what says whether the process is to live for its sake. */
function watch({ koffi, library }: SystemCalls, epoll: number, readable: () => void): (holds: boolean) => void {
  const handleBytes: number = library.func('size_t uv_handle_size(int)')(uvPollType);
  const loop: unknown = library.func('void *uv_default_loop()')();
  const handle: unknown = koffi.alloc('uint8_t', handleBytes);
  const callbackType = koffi.proto('void', ['void *', 'int', 'int']);
  const callback = koffi.register(readable, koffi.pointer(callbackType));
  const init: number = library.func('int uv_poll_init(void *, void *, int)')(loop, handle, epoll);
  const start: number =
    init < 0 ? init : library.func('uv_poll_start', 'int', ['void *', 'int', koffi.pointer(callbackType)])(handle, uvReadable, callback);
  if (start < 0) throw new Error(`libuv cannot watch the epoll set: error ${start}`);
  const [ref, unref] = [library.func('void uv_ref(void *)'), library.func('void uv_unref(void *)')];
  unref(handle);
  return (holds) => (holds ? ref(handle) : unref(handle));
}

let poll: EventPoll | undefined | 'unknown' = 'unknown';

/** The process's one, or `undefined` where its parts cannot be had. */
export function eventPoll(): EventPoll | undefined {
  if (poll === 'unknown') {
    const calls = systemCalls();
    try {
      poll = calls === undefined ? undefined : new EventPoll(calls);
    } catch {
      poll = undefined;
    }
  }
  return poll;
}
