// sse.ts: the text/event-stream format, from chunks that end anywhere. Pure.

export interface SseMessage {
  event: string;
  data: string;
  id: string | null;
}

export class SseParser {
  private rest = '';
  private event = '';
  private data: string[] = [];
  private id: string | null = null;

  /** The messages that are whole now. Comments and unknown fields are skipped. */
  push(chunk: string): SseMessage[] {
    const lines = (this.rest + chunk).split(/\r\n|\n/);
    const whole: SseMessage[] = [];

    this.rest = lines.pop()!;
    for (const line of lines) {
      if (line === '') {
        if (this.data.length)
          whole.push({ event: this.event || 'message', data: this.data.join('\n'), id: this.id });
        this.event = '';
        this.data = [];
        this.id = null;
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'event') this.event = value;
      else if (field === 'data') this.data.push(value);
      else if (field === 'id') this.id = value;
    }
    return whole;
  }
}
