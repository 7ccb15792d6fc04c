import t from 'tap'
import {
  decide,
  type EnvironmentPhase,
  mayFollow,
  PHASES,
  type Wish
} from '../../src/environments/lifecycle.ts'

const PREFIX = 'ENVIRONMENT_PHASE_'
const short = (phase: string) => phase.slice(PREFIX.length)

// A row is the phase before, a column the one that is reported: `+` may follow, `-` may not.
const TRANSITIONS = `
          CREATING STARTING RUNNING UPDATING STOPPING STOPPED DELETING DELETED
CREATING  +        +        +       +        +        +       +        +
STARTING  +        +        +       +        +        +       +        +
RUNNING   +        +        +       +        +        +       +        +
UPDATING  +        +        +       +        +        +       +        +
STOPPING  +        +        +       -        +        +       +        +
STOPPED   +        +        +       -        -        +       +        +
DELETING  -        -        -       -        -        -       +        +
DELETED   -        -        -       -        -        -       -        +
`

t.test('which phase may follow which', async (t) => {
  const [header, ...rows] = TRANSITIONS.trim()
    .split('\n')
    .map((line) => line.trim().split(/ +/))
  t.strictSame(header, PHASES.map(short))
  t.strictSame(
    rows.map(([before]) => before),
    PHASES.map(short)
  )
  for (const [before, ...cells] of rows) {
    for (const [index, cell] of cells.entries()) {
      const after = PHASES[index]!
      const may = mayFollow(`${PREFIX}${before}` as EnvironmentPhase, after)
      t.equal(may, cell === '+', `${before} → ${short(after)}`)
    }
  }
})

// What it is to be, and whether it is archived (a); then what comes of each wish: the same in letters, or why not.
const WISHES = `
            start      stop       delete     archive    unarchive  update
RUNNING     RUNNING    STOPPED    DELETED    STOPPED,a  RUNNING    RUNNING
STOPPED     RUNNING    STOPPED    DELETED    STOPPED,a  STOPPED    STOPPED
STOPPED,a   archived   STOPPED,a  DELETED,a  STOPPED,a  STOPPED    archived
DELETED     deleted    deleted    DELETED    deleted    deleted    deleted
DELETED,a   deleted    deleted    DELETED,a  deleted    deleted    deleted
`

function intentionOf(letters: string) {
  const [phase, archived] = letters.split(',')
  return { desiredPhase: `${PREFIX}${phase}`, archived: archived === 'a' }
}

t.test('what comes of wishes', async (t) => {
  const [wishes, ...rows] = WISHES.trim()
    .split('\n')
    .map((line) => line.trim().split(/ +/))
  for (const [now, ...cells] of rows) {
    for (const [index, cell] of cells.entries()) {
      const decision = decide(wishes![index] as Wish, intentionOf(now!))
      const name = `${now}: ${wishes![index]}`
      if (cell === 'archived') t.match(decision, { refusal: /Unarchive it first/ }, name)
      else if (cell === 'deleted') t.match(decision, { refusal: /being deleted/ }, name)
      else t.strictSame(decision, { intention: intentionOf(cell) }, name)
    }
  }
})
