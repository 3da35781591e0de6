import { expect, it } from 'vitest';
import { type AccountName, parseAccountName } from '#common/account-name.ts';
import { IndexQuestions } from '#deploy/run/index-questions.ts';

const name = (number: number): AccountName => parseAccountName(`user${number}@isp.example`);

it('asks for what came up in one turn at once, and gives each its own answer', async () => {
  const asked: number[] = [];
  const questions = new IndexQuestions({
    ask: async (_what, { addresses }) => {
      asked.push((addresses as AccountName[]).length);
      const routes = (addresses as AccountName[]).map((address) =>
        address === name(1) ? null : address === name(2) ? { isName: false } : { cluster: `of ${address}`, isName: true },
      );
      return { routes };
    },
  });
  const found = await Promise.all([1, 2, 3].map((number) => questions.find(name(number), name(number))));
  expect(found).toEqual([undefined, { cluster: undefined, isName: false }, { cluster: 'of user3@isp.example', isName: true }]);
  const many = await Promise.all(Array.from({ length: 600 }, (_, index) => questions.find(name(10 + index), name(10 + index))));
  expect(many.at(-1)).toEqual({ cluster: 'of user609@isp.example', isName: true });
  expect(asked).toEqual([3, 512, 88]);
});

it('knows nothing when the other process does not answer', async () => {
  const questions = new IndexQuestions({ ask: () => Promise.reject(new Error('gone')) });
  expect(await questions.find(name(1), name(1))).toBeUndefined();
  questions.forget(name(1));
});
