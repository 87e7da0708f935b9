// stream.ts: what lhd pushes, kept open. Read with fetch and not EventSource, which
// cannot send the key. After a break it goes on at the last cursor, and whoever listens
// loads anew what it shows (`up`), so that a break leaves no gap and no double.
//
// A page that is not seen lets go of its stream: a browser has six connections to one
// host, and a seventh open page would wait for ever.
import { authorization, NoSession } from './api';
import { SseParser } from './sse';

export interface StreamListener {
  message(event: string, data: unknown): void;
  up(again: boolean): void; // connected; again: not for the first time
  down(lastHeardMs: number): void;
  denied(): void; // the key is not valid any more
}

/** Heartbeats that may be missing before the connection is given up. */
const BEATS_MISSED = 3;
const BEAT_MS = 10_000; // until hello tells
const RETRY_MIN_MS = 300;
const RETRY_MAX_MS = 3_000;
/** Hidden for so long: the stream is let go. */
const HIDDEN_MS = 10_000;
/** After a longer break everything is loaded anew, not sent again step by step. */
const RESUME_MS = 60_000;

/** There is nothing to listen to: no such job. The page's own calls tell. */
class Refused extends Error {}

/** Opens it; the answer closes it for good. */
export function openStream(query: string, listener: StreamListener): () => void {
  let closed = false;
  let abort = new AbortController();
  let cursor: string | null = null;
  let heardMs = Date.now();
  let beatMs = BEAT_MS;
  let was = false; // it was up before
  let retryMs = RETRY_MIN_MS;
  let hideTimer = 0;
  let seen = (): void => {}; // ends a wait for being seen

  async function read(): Promise<void> {
    let watch = 0;
    const heard = () => {
      heardMs = Date.now();
      clearTimeout(watch);
      watch = window.setTimeout(() => abort.abort(), BEATS_MISSED * beatMs);
    };
    abort = new AbortController();
    if (Date.now() - heardMs > RESUME_MS) cursor = null;
    try {
      const headers = { ...authorization(), ...(cursor === null ? {} : { 'Last-Event-ID': cursor }) };
      watch = window.setTimeout(() => abort.abort(), BEATS_MISSED * beatMs);
      const res = await fetch(`/events?${query}`, {
        headers,
        signal: abort.signal,
        cache: 'no-store',
        credentials: 'omit',
      });
      if (res.status === 401) throw new NoSession();
      if (res.status >= 400 && res.status < 500) throw new Refused();
      if (!res.ok || !res.body) throw new Error(`HTTP status ${res.status}`);
      const parser = new SseParser();
      const reader = res.body.pipeThrough(new TextDecoderStream()).getReader();
      heard();
      listener.up(was);
      was = true;
      retryMs = RETRY_MIN_MS;
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        heard();
        for (const m of parser.push(value)) {
          const data = JSON.parse(m.data);
          if (m.id !== null) cursor = m.id;
          if (m.event === 'hello') beatMs = data.beat_ms ?? beatMs;
          listener.message(m.event, data);
        }
      }
    } finally {
      clearTimeout(watch);
    }
  }

  async function keep(): Promise<void> {
    while (!closed) {
      try {
        await read();
      } catch (e) {
        if (!closed && e instanceof NoSession) return listener.denied();
        if (e instanceof Refused) return;
      }
      if (closed) return;
      if (document.hidden) {
        await new Promise<void>((r) => {
          seen = r;
        });
        continue;
      }
      listener.down(heardMs);
      await new Promise((r) => setTimeout(r, retryMs));
      retryMs = Math.min(RETRY_MAX_MS, retryMs * 2);
    }
  }

  const onVisibility = () => {
    clearTimeout(hideTimer);
    if (document.hidden) hideTimer = window.setTimeout(() => abort.abort(), HIDDEN_MS);
    else seen();
  };
  document.addEventListener('visibilitychange', onVisibility);
  void keep();
  return () => {
    closed = true;
    clearTimeout(hideTimer);
    document.removeEventListener('visibilitychange', onVisibility);
    abort.abort();
    seen();
  };
}
