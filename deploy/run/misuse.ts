/** A mistake in a command line: it is shown with the usage, and the exit code is 2. */
export class Misuse extends Error {}
