import { version } from './version.ts'

const places = [
  ['/api/v1/employees', 'employees: POST one to hire somebody'],
  ['/api/v1/payroll/accounts', 'payroll accounts: opened by the event of hiring'],
  ['/api/v1/events', 'what happened lately, and under /api/v1/events/{eventId} the life of one event'],
  ['/openapi.json', 'the API, described'],
  ['/readyz', 'whether it can do its work'],
  ['/metrics', 'its numbers, for Prometheus'],
] as const

/** Tells a visitor where to look; it needs nothing but a browser. */
export const frontPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kerp</title>
<style>body { font: 16px/1.6 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }</style>
<h1>kerp ${version}</h1>
<p>It is running. Look at:</p>
<ul>
${places.map(([path, what]) => `<li><a href="${path}"><code>${path}</code></a>: ${what}</li>`).join('\n')}
</ul>
</html>
`
