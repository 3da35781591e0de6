/**
 * A value that must not be printed: passwords, SASL payloads, tokens. It prints as `[secret]` wherever a logger, `JSON.stringify`,
 * template string or `util.inspect` meets it.
 */
import { inspect } from 'node:util';

/** Wraps a secret; only `reveal` gives it back. */
export class Secret<T = string> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  /** The value itself, for the one place that needs it. */
  reveal(): T {
    return this.#value;
  }

  toString(): string {
    return '[secret]';
  }

  toJSON(): string {
    return '[secret]';
  }

  [inspect.custom](): string {
    return '[secret]';
  }
}
