/**
 * What is here now, of things that come and go by the thousand a second, each with a good deal behind it: sessions.
 *
 * Not a `Set` or a `Map`: those put their entries into a new table now and then, the old table refers to the new one, and both to the entries of their
 * time. Once one old table has outlived a collection of new objects, all later ones do, and with them everything that was ever in them, until the
 * whole heap is collected: with 64 sessions at a time each such collection copied thousands that were over, and took 20 ms instead of one.
 * Where a table must be, what is in it lets go of what it refers to when it is taken out.
 */

/** Where something stands; to be given back. */
export interface Seat {
  at: number;
}

/** See the header of this file. */
export class Roster<T> {
  readonly #items: T[] = [];
  readonly #seats: Seat[] = [];

  get size(): number {
    return this.#items.length;
  }

  add(item: T): Seat {
    const seat = { at: this.#items.length };
    this.#items.push(item);
    this.#seats.push(seat);
    return seat;
  }

  /** Takes out what stands there; the second time nothing. */
  remove(seat: Seat): void {
    const { at } = seat;
    if (this.#seats[at] !== seat) return;
    const lastItem = this.#items.pop() as T;
    const lastSeat = this.#seats.pop() as Seat;
    seat.at = -1;
    if (lastSeat === seat) return;
    this.#items[at] = lastItem;
    this.#seats[at] = lastSeat;
    lastSeat.at = at;
  }

  /** Those that are here, in no order, as of now: they may go while they are looked at. */
  values(): T[] {
    return [...this.#items];
  }

  [Symbol.iterator](): IterableIterator<T> {
    return this.#items.values();
  }
}
