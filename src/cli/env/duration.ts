import { InvalidArgumentError } from 'commander'

const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 }

/** "90s", "30m", "1h30m", "2d", or 0, as seconds. */
export function parseDuration(text: string): number {
  if (text === '0') return 0
  if (!/^([0-9]{1,9}[smhd])+$/.test(text)) {
    throw new InvalidArgumentError('Write it as 90s, 30m, 1h30m or 2d.')
  }
  const parts = [...text.matchAll(/([0-9]+)([smhd])/g)]
  return parts.reduce((seconds, [, count, unit]) => seconds + Number(count) * UNITS[unit!]!, 0)
}
