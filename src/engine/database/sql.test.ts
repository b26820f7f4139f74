import { describe, expect, test } from 'vitest'
import { literal, sql } from './sql.ts'

describe('sql', () => {
  test('keeps values apart from the text', () => {
    const { text, values } = sql`select * from t where a = ${"'; drop table t --"} and b = ${7}`
    expect(text).toBe('select * from t where a = $1 and b = $2')
    expect(values).toEqual(["'; drop table t --", 7])
  })

  test('gives the same text the same name, whatever the values', () => {
    const find = (id: number) => sql`select ${id}`
    expect(find(1).name).toBe(find(2).name)
    expect(find(1).name).toBe(sql`select ${3}`.name)
  })

  test('gives another text another name, one that Postgres does not cut off', () => {
    const long = 'x'.repeat(100)
    const names = [sql`select 1`, sql`select 2`, sql`select ${literal(3)}`].map(({ name }) => name)
    expect(new Set(names).size).toBe(3)
    expect(sql`select ${sql`${long}`} as x`.name.length).toBeLessThan(64)
  })

  test('puts fragments into the text and renumbers their values', () => {
    const condition = (min: number, max: number) => sql`n between ${min} and ${max}`
    const { text, values } = sql`select ${'a'} where ${condition(1, 2)} or (${condition(3, 4)}) limit ${5}`
    expect(text).toBe('select $1 where n between $2 and $3 or (n between $4 and $5) limit $6')
    expect(values).toEqual(['a', 1, 2, 3, 4, 5])
  })

  test('takes fragments within fragments', () => {
    const inner = sql`x = ${1}`
    const { text, values } = sql`a = ${0} and (${sql`${inner} or ${inner} or y = ${2}`})`
    expect(text).toBe('a = $1 and (x = $2 or x = $3 or y = $4)')
    expect(values).toEqual([0, 1, 1, 2])
  })

  test('renumbers more than nine', () => {
    const many = sql`${1},${2},${3},${4},${5},${6},${7},${8},${9},${10}`
    expect(sql`${0},${many}`.text).toBe('$1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11')
  })

  test('leaves a dollar in the text of a fragment as it is', () => {
    const { text } = sql`select ${'a'}, ${sql`'it costs $5', ${'b'}`}`
    expect(text).toBe("select $1, 'it costs $5', $2")
  })

  test('does not take an object that looks like a statement for one', () => {
    const { text, values } = sql`select ${{ text: 'drop table t', values: [], name: 'x' }}`
    expect(text).toBe('select $1')
    expect(values).toHaveLength(1)
  })

  test('knows fragments put together from the same pieces again', () => {
    const build = (id: number) => sql`select * from t where ${sql`id = ${id}`}`
    expect(build(1).name).toBe(build(2).name)
  })
})

test('a literal number is part of the text, and never more than a number', () => {
  expect(sql`limit ${literal(10)}`).toMatchObject({ text: 'limit 10', values: [] })
  expect(literal(-3.7).text).toBe('-3')
  expect(literal('1; drop table t' as never).text).not.toContain('drop')
})
