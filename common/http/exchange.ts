/**
 * One HTTP request and its whole answer, as core code is given it: bytes in, bytes out, any status resolves. The real one is
 * node-exchange.ts.
 */

/** A request. */
export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  /** `http://host:port` or `https://…`, without a path. */
  readonly origin: string;
  /** Path and query, sent exactly as they are here. */
  readonly target: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: readonly Uint8Array[];
  /** For the whole exchange. */
  readonly timeoutMs: number;
  /** A longer answer ends the exchange with `PROTO_TOO_LONG`. */
  readonly answerBytesMax: number;
}

/** An answer. */
export interface HttpAnswer {
  readonly status: number;
  /** Names in lower case; of a repeated header, its values joined. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** Sends requests over kept connections. */
export interface HttpExchange extends AsyncDisposable {
  /**
   * Rejects with `NET_CONNECT_FAILED` or `NET_TLS_FAILED` (the request was certainly not sent), or with `NET_TIMEOUT`, `NET_CLOSED` or
   * `PROTO_TOO_LONG`, and then it is not known whether the server did what was asked. Nothing is sent twice.
   */
  request(request: HttpRequest): Promise<HttpAnswer>;
}
