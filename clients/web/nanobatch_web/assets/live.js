// Follows one run by asking for what is new. No connection is held: ten tabs of one browser all stay live.
import {MOUNT, POLL_LIMIT} from "./base.js";

const HIDDEN_PAUSE = 3000;
const TROUBLE_PAUSE = 1000;

export class Live {
  #since = -1;
  #epoch = "";
  #tab = Math.random().toString(36).slice(2);
  #timer = null;
  #ended = false;
  #look = () => { if (!document.hidden) this.#soon(0); };

  // seen(delta) gets every delta: what is new, or all there is. trouble(kind) is "", "lost" or "not_found".
  constructor(execution, {seen, trouble}) {
    this.execution = execution;
    this.seen = seen;
    this.trouble = trouble;
    document.addEventListener("visibilitychange", this.#look);
    this.#soon(0);
  }

  stop() {
    this.#ended = true;
    clearTimeout(this.#timer);
    document.removeEventListener("visibilitychange", this.#look);
  }

  ask() {
    this.#soon(0);
  }

  #soon(pause) {
    clearTimeout(this.#timer);
    if (!this.#ended) this.#timer = setTimeout(() => this.#ask(), pause);
  }

  async #ask() {
    let pause = TROUBLE_PAUSE;
    try {
      const query = new URLSearchParams({since: this.#since, epoch: this.#epoch, tab: this.#tab});
      const answer = await fetch(`${MOUNT}/nb/live/${encodeURIComponent(this.execution)}?${query}`, {
        signal: AbortSignal.timeout(POLL_LIMIT),
      });
      if (this.#ended) return;
      if (answer.status === 401) return; // base.js leads to the login
      if (answer.status === 404 || answer.status === 400) {
        this.trouble("not_found");
        return;
      }
      if (!answer.ok) throw new Error(String(answer.status));
      const delta = await answer.json();
      if (this.#ended) return;
      this.#since = delta.version;
      this.#epoch = delta.epoch;
      this.#show(delta);
      pause = Number(answer.headers.get("X-Poll-Milliseconds")) || TROUBLE_PAUSE;
    } catch {
      this.trouble("lost");
    }
    this.#soon(document.hidden ? Math.max(pause, HIDDEN_PAUSE) : pause);
  }

  // A slip of the page is no lost connection.
  #show(delta) {
    this.trouble(delta.trouble ? "lost" : "");
    try {
      this.seen(delta);
    } catch (error) {
      console.error(error);
    }
  }
}
