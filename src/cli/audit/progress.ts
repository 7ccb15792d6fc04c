const PROGRESS_MS = 2_000

/** A line now and then, so that a long run is seen to go on. */
export function progress(verb: string): (records: number) => void {
  let last = performance.now()
  return (records) => {
    if (performance.now() - last < PROGRESS_MS) return
    last = performance.now()
    process.stderr.write(`${verb} ${records} records …\n`)
  }
}
