/** A family of files as JSON. */

import type { Family, FamilyLink } from '../../chain/index.ts'

/** The object of `--json`; `backing.file` is the path of another entry, or absent where there is none. */
export function familyObject({ members, skipped, isComplete }: Family): object {
  const link = (one: FamilyLink | undefined): object | undefined =>
    one && {
      name: one.name,
      path: one.path,
      state: one.state,
      ...(one.message === '' ? {} : { message: one.message }),
      ...(one.member === undefined ? {} : { file: members[one.member]?.path }),
    }
  return {
    files: members.map((member) => ({
      path: member.path,
      'other-paths': member.otherPaths,
      asked: member.asked,
      format: member.format,
      ...(member.size === undefined ? {} : { 'virtual-size': member.size }),
      'actual-size': member.stat.allocated,
      depth: member.depth,
      snapshots: member.snapshots.map(({ id, name }) => ({ id, name })),
      ...(member.backing === undefined ? {} : { backing: link(member.backing) }),
      ...(member.dataFile === undefined ? {} : { 'data-file': link(member.dataFile) }),
    })),
    skipped: skipped.map(({ path, reason }) => ({ path, reason })),
    complete: isComplete,
  }
}
