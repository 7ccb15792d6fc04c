// What is typed or pasted at a terminal in raw mode, until Enter; nothing of it is shown.

const CAPACITY = 1024 * 1024
const PASTE_END = Buffer.from('\x1b[201~')

const TAB = 0x09
const LF = 0x0a
const CR = 0x0d
const ESCAPE = 0x1b
const CTRL_C = 0x03
const CTRL_D = 0x04
const CTRL_H = 0x08
const CTRL_U = 0x15
const DELETE = 0x7f

export type LineState =
  | 'open'
  | 'entered'
  | 'cancelled'
  /** lines that were pasted into a terminal that does not mark a paste */
  | 'several'
  | 'too-long'

/**
 * Bytes of the keyboard in, bytes of the value out. Between the marks of a bracketed paste everything belongs to
 * the value, with the line ends that terminals turn into CR put back; outside of it, keys edit.
 */
export class HiddenLine {
  state: LineState = 'open'
  readonly #bytes = Buffer.allocUnsafeSlow(CAPACITY)
  #length = 0
  #mode: 'keys' | 'escape' | 'sequence' | 'function-key' | 'paste' = 'keys'
  /** parameters of the sequence that is being read */
  #parameters = ''
  /** how much of the end mark of a paste has been seen */
  #matched = 0
  #afterCr = false

  feed(bytes: Uint8Array): LineState {
    for (const byte of bytes) {
      if (this.state === 'open') this.#take(byte)
      else if (this.state === 'entered' && byte !== CR && byte !== LF) this.state = 'several'
    }
    return this.state
  }

  /** A copy of what was entered; the rest is wiped. */
  take(): Buffer {
    const value = Buffer.allocUnsafeSlow(this.#length)
    this.#bytes.copy(value, 0, 0, this.#length)
    this.wipe()
    return value
  }

  wipe(): void {
    this.#bytes.fill(0)
    this.#length = 0
  }

  #take(byte: number): void {
    if (this.#mode === 'paste') this.#paste(byte)
    else if (this.#mode === 'keys' || byte < 0x20) this.#key(byte)
    else this.#sequence(byte)
  }

  #key(byte: number): void {
    this.#mode = 'keys'
    if (byte === ESCAPE) this.#mode = 'escape'
    else if (byte === CR || byte === LF) this.state = 'entered'
    else if (byte === CTRL_C) this.state = 'cancelled'
    else if (byte === CTRL_D) this.state = this.#length === 0 ? 'cancelled' : 'entered'
    else if (byte === DELETE || byte === CTRL_H) this.#backspace()
    else if (byte === CTRL_U) this.#length = 0
    else if (byte >= 0x20 || byte === TAB) this.#append(byte)
  }

  /** Arrows and the like are no part of a value. */
  #sequence(byte: number): void {
    if (this.#mode === 'escape') {
      this.#parameters = ''
      this.#mode = byte === 0x5b ? 'sequence' : byte === 0x4f ? 'function-key' : 'keys'
      return
    }
    if (this.#mode === 'sequence' && byte < 0x40) {
      this.#parameters += String.fromCharCode(byte)
      return
    }
    const pasting = this.#mode === 'sequence' && byte === 0x7e && this.#parameters === '200'
    this.#mode = pasting ? 'paste' : 'keys'
  }

  #paste(byte: number): void {
    if (byte === PASTE_END[this.#matched]) {
      this.#matched += 1
      if (this.#matched === PASTE_END.length) {
        this.#matched = 0
        this.#afterCr = false
        this.#mode = 'keys'
      }
      return
    }
    for (const skipped of PASTE_END.subarray(0, this.#matched)) this.#append(skipped)
    const restarts = this.#matched > 0 && byte === ESCAPE
    this.#matched = restarts ? 1 : 0
    if (restarts) return
    if (byte === CR) this.#append(LF)
    else if (byte !== LF || !this.#afterCr) this.#append(byte)
    this.#afterCr = byte === CR
  }

  /** One character, which in UTF-8 may be several bytes. */
  #backspace(): void {
    while (this.#length > 0) {
      this.#length -= 1
      if ((this.#bytes[this.#length]! & 0xc0) !== 0x80) return
    }
  }

  #append(byte: number): void {
    if (this.#length === CAPACITY) this.state = 'too-long'
    else this.#bytes[this.#length++] = byte
  }
}
