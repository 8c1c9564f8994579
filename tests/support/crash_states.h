// What a disk may hold after a power cut, for every point of a log (recording_file_ops.h).
//
// The model. A cut comes after the first n operations of the log; what an operation changed is then
// durable or volatile.
//
//   Durable    the bytes and the size that a file had when fdatasync returned for it; the names of
//              a directory as they were when its fsync returned; what the log began with. Nothing
//              else: fdatasync makes no name durable, the fsync of a directory no byte, and neither
//              anything in another directory.
//   Bytes      of volatile writes to a file each 512-byte sector is there or not, whatever became
//              of the others and of later writes elsewhere. Where several writes met one sector, it
//              has what it had after any of them: a sector never goes back, and is never mixed.
//   Size       any that the file had since it was last synced, whatever its bytes. A sector within
//              it that never reached the disk reads as zeros, or as whatever lay there before.
//   Names      two kinds of file system, both enumerated:
//              ordered  the changes of names took effect in the order in which they were made, and
//                       the cut comes after any of them (a journal: ext4, XFS);
//              any      each name has any value it had since its directory was last synced,
//                       whatever the others have: a rename may have only removed the old name, or
//                       only made the new one (the least that POSIX says).
//   Files      whose last name is gone are gone. One file under two names is one file.
//
// So bytes that were renamed before they were synced may be missing under their final name, and two
// operations that no sync separates reach the disk in either order.
//
// Where a point has few states all are visited, else a seeded sample that always has: everything
// kept, everything lost, all names without the bytes, all bytes without the names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "tests/support/recording_file_ops.h"

namespace millrace::test {

struct CrashState {
  std::size_t operations;  // of the log that were made
  DiskImage disk;
  std::string how;  // what is left of what was volatile, for messages
};

struct CrashLimits {
  std::size_t per_point = 24;  // states, of names and bytes together
  std::uint64_t seed = 1;
};

struct CrashCounts {
  std::size_t points = 0;      // of the log
  std::size_t all_of = 0;      // points of which every state was visited
  std::size_t states = 0;      // visited
  std::size_t duplicates = 0;  // not visited: an equal disk after as many marks was visited before
};

// The same log, limits and seed give the same states in the same order.
CrashCounts for_each_crash_state(const DiskLog& log, const CrashLimits& limits,
                                 const std::function<void(const CrashState&)>& visit);

}  // namespace millrace::test
