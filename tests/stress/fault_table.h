// Which faults a file operation can have, and which of them nobody has to hear of.
#pragma once

#include <string>

#include "tests/support/fault_file_ops.h"

namespace millrace::test {

enum class FaultKind {
  kNoSpace,      // ENOSPC
  kQuota,        // EDQUOT
  kIo,           // EIO
  kInterrupted,  // EINTR
  kShort,        // half of the bytes
  kRefused,      // what a file system says that lacks the call
};
inline constexpr FaultKind kFaultKinds[] = {FaultKind::kNoSpace, FaultKind::kQuota,
                                            FaultKind::kIo,      FaultKind::kInterrupted,
                                            FaultKind::kShort,   FaultKind::kRefused};

std::string fault_name(FaultKind kind);

// Whether a kernel, or a network's file system, may answer that way.
bool can_fail(const FileCall& call, FaultKind kind);
FaultFileOps::Fate fate_of(const FileCall& call, FaultKind kind);

// Why one such fault during training is no failure of the run, or null: then it has to be told.
const char* why_tolerated(const FileCall& call, FaultKind kind);

// Whether nobody needs the answer where nobody hears of the fault. Where it is needed, it is told.
bool may_be_silent(const FileCall& call);

}  // namespace millrace::test
