/**
 * The accounts and messages that a new federation starts with. The messages are delivered by SMTP through a frontend, as any others.
 */
import { siteDomain } from './plan.ts';

/** An account of the demo. */
export interface SampleAccount {
  readonly name: string;
  readonly displayName: string;
  readonly hostServer: string;
  readonly password: string;
}

/** Two accounts on each cluster. The passwords are public: everything listens on loopback and is thrown away. */
export const sampleAccounts: readonly SampleAccount[] = [
  { name: `alice@${siteDomain}`, displayName: 'Alice Archer', hostServer: 'east.isp.example', password: 'alice-secret' },
  { name: `bob@${siteDomain}`, displayName: 'Bob Baker', hostServer: 'east.isp.example', password: 'bob-secret' },
  { name: `carol@${siteDomain}`, displayName: 'Carol Cooper', hostServer: 'west.isp.example', password: 'carol-secret' },
  { name: `dave@${siteDomain}`, displayName: 'Dave Dyer', hostServer: 'west.isp.example', password: 'dave-secret' },
];

/** A message to deliver: RFC 5322 text with CRLF line ends. */
export interface SampleMessage {
  readonly from: string;
  readonly to: string;
  readonly raw: string;
}

/** Three messages for each account: plain text, text with HTML and an attachment, and a subject outside ASCII. */
export function sampleMessages(dateMs: number): SampleMessage[] {
  return sampleAccounts.flatMap((account, index) => {
    const from = sampleAccounts[(index + 1) % sampleAccounts.length] as SampleAccount;
    const message = (id: string, subject: string, headers: string[], body: string[]): SampleMessage => ({
      from: from.name,
      to: account.name,
      raw: [
        `Date: ${new Date(dateMs).toUTCString().replace('GMT', '+0000')}`,
        `From: ${from.displayName} <${from.name}>`,
        `To: ${account.displayName} <${account.name}>`,
        `Message-ID: <${id}.${index}.${dateMs}@${siteDomain}>`,
        `Subject: ${subject}`,
        'MIME-Version: 1.0',
        ...headers,
        '',
        ...body,
        '',
      ].join('\r\n'),
    });
    return [
      message(
        'welcome',
        'Welcome aboard',
        ['Content-Type: text/plain; charset=utf-8'],
        [
          `Hello ${account.displayName},`,
          '',
          `your account is hosted by the cluster ${account.hostServer}.`,
          'Either subset finds it: try the addresses that the demo printed.',
        ],
      ),
      message(
        'chart',
        'Harbour chart',
        ['Content-Type: multipart/mixed; boundary="outer"'],
        [
          '--outer',
          'Content-Type: multipart/alternative; boundary="inner"',
          '',
          '--inner',
          'Content-Type: text/plain; charset=utf-8',
          '',
          'The chart is attached.',
          '--inner',
          'Content-Type: text/html; charset=utf-8',
          '',
          '<p>The <b>chart</b> is attached.</p>',
          '--inner--',
          '--outer',
          'Content-Type: text/csv; name="chart.csv"',
          'Content-Disposition: attachment; filename="chart.csv"',
          'Content-Transfer-Encoding: base64',
          '',
          Buffer.from('buoy,depth\nnorth,12\nsouth,9\n').toString('base64'),
          '--outer--',
        ],
      ),
      message(
        'greeting',
        `=?utf-8?B?${Buffer.from('Grüße aus dem Süden').toString('base64')}?=`,
        ['Content-Type: text/plain; charset=utf-8', 'Content-Transfer-Encoding: 8bit'],
        ['Schöne Grüße!', '', from.displayName],
      ),
    ];
  });
}
