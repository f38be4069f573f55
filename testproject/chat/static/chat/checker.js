/** Judges by the ids alone whether a channel arrived whole: each id once, in order. */
export class Checker {
  received = 0;
  doubled = 0;
  #gaps = new Set();

  /** @param {number} last  the id after which the page's stream begins */
  constructor(last) {
    this.last = last;
  }

  get missing() {
    return this.#gaps.size;
  }

  /** @param {number} id */
  see(id) {
    this.received++;
    for (let gap = this.last + 1; gap < id; gap++) this.#gaps.add(gap);
    if (id <= this.last && !this.#gaps.delete(id)) this.doubled++;
    this.last = Math.max(this.last, id);
  }
}
