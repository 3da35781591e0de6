/** Where the servers of a run live: named hosts with an address each, on a network that may be cut. */
export interface Hosts {
  /** All addresses, as `clusterNetwork` takes them. */
  readonly network: string;
  /** Whether connections can be cut. */
  readonly hasCuts: boolean;
  /** What stands before the command of a program that is to run on the host `client`. */
  readonly client: readonly string[];
  addressOf(host: string): string;
  /** Packets from one host to another are dropped, as by a broken switch. */
  cut(from: string, to: string): Promise<void>;
  /** Ends all cuts. */
  heal(): Promise<void>;
  /** Starts the services of a node file, and resolves once they serve. What they log is added to `logFile`. */
  serve(host: string, nodeFile: string, logFile: string): Promise<Server>;
  /** Starts redis-server with these arguments. It may not answer yet. */
  redis(host: string, args: readonly string[]): Promise<Server>;
  /** Takes the hosts away, with all that runs on them. */
  remove(): Promise<void>;
}

/** What was started on a host. */
export interface Server {
  readonly isRunning: boolean;
  /** Stands still and goes on; nothing happens to one that has ended. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): Promise<void>;
  /** Resolves when it has ended: by force, when it does not listen to SIGTERM. */
  end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>;
}
