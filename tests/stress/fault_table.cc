#include "tests/stress/fault_table.h"

#include <algorithm>
#include <cerrno>
#include <initializer_list>
#include <string_view>

namespace millrace::test {
namespace {

bool is_one_of(FileOp op, std::initializer_list<FileOp> ops) {
  return std::find(ops.begin(), ops.end(), op) != ops.end();
}

bool takes_bytes(FileOp op) {
  return is_one_of(op, {FileOp::kPwrite, FileOp::kAppend, FileOp::kPread});
}

// Calls that may need a block or an inode.
bool takes_space(FileOp op) {
  return is_one_of(op, {FileOp::kCreate, FileOp::kPwrite, FileOp::kAppend, FileOp::kFallocate,
                        FileOp::kFdatasync, FileOp::kRename, FileOp::kLink, FileOp::kMkdir,
                        FileOp::kFsyncDir, FileOp::kClose}) ||
         op == FileOp::kOpenAppend;
}

// The errno of a file system without the call; 0: every one has it.
int refusal(const FileCall& call) {
  if (call.op == FileOp::kFallocate) return EOPNOTSUPP;
  if (call.op == FileOp::kSyncRange) return ENOSYS;
  if (call.op == FileOp::kDropCache) return EINVAL;
  if (call.op == FileOp::kLink) return EPERM;
  return 0;
}

bool is_temporary_checkpoint(const std::string& path) {
  return path.find(".pth.") != std::string::npos && path.ends_with(".tmp");
}

}  // namespace

std::string fault_name(FaultKind kind) {
  switch (kind) {
    case FaultKind::kNoSpace:
      return "ENOSPC";
    case FaultKind::kQuota:
      return "EDQUOT";
    case FaultKind::kIo:
      return "EIO";
    case FaultKind::kInterrupted:
      return "EINTR";
    case FaultKind::kShort:
      return "a short count";
    case FaultKind::kRefused:
      break;
  }
  return "a refusal";
}

bool can_fail(const FileCall& call, FaultKind kind) {
  switch (kind) {
    case FaultKind::kNoSpace:
    case FaultKind::kQuota:
      return takes_space(call.op);
    case FaultKind::kShort:
      return takes_bytes(call.op) && call.length > 1;
    case FaultKind::kRefused:
      return refusal(call) != 0;
    case FaultKind::kIo:
    case FaultKind::kInterrupted:
      break;
  }
  return true;
}

FaultFileOps::Fate fate_of(const FileCall& call, FaultKind kind) {
  switch (kind) {
    case FaultKind::kNoSpace:
      return {ENOSPC};
    case FaultKind::kQuota:
      return {EDQUOT};
    case FaultKind::kIo:
      return {EIO};
    case FaultKind::kInterrupted:
      return {EINTR};
    case FaultKind::kRefused:
      return {refusal(call)};
    case FaultKind::kShort:
      break;
  }
  // Whole blocks where there are several, as a disk does it.
  const std::size_t half = call.length / 2;
  return {0, half >= 4096 ? half / 4096 * 4096 : std::max<std::size_t>(half, 1)};
}

const char* why_tolerated(const FileCall& call, FaultKind kind) {
  const FileOp op = call.op;
  if (kind == FaultKind::kShort) return "the rest follows";
  if (kind == FaultKind::kRefused) return "done without: a hint, or a link that becomes a copy";
  if (op == FileOp::kDropCache) return "advice to the kernel";
  if (op == FileOp::kUnlink) return "a hidden name, swept by the next prepare()";
  if (op == FileOp::kClose && call.path.ends_with(".pth")) return "it was only read";
  if (op == FileOp::kFdatasync && is_temporary_checkpoint(call.path)) {
    return "the checkpoint is written again under a new name";
  }
  if (kind != FaultKind::kInterrupted) return nullptr;
  if (op == FileOp::kClose) return "the descriptor is gone all the same";
  if (takes_bytes(op) ||
      is_one_of(op, {FileOp::kCreate, FileOp::kOpenRead, FileOp::kOpenAppend, FileOp::kFallocate,
                     FileOp::kFtruncate, FileOp::kSyncRange})) {
    return "repeated";
  }
  return nullptr;
}

// Of a file that goes, its size for the log. At the start, its generation, which the catalog has
// too. The catalog itself is opened both to read and to append.
bool may_be_silent(const FileCall& call) {
  if (call.op == FileOp::kClose) return call.path.ends_with("checkpoints.catalog");
  return call.path.ends_with(".pth") &&
         is_one_of(call.op, {FileOp::kOpenRead, FileOp::kFstat, FileOp::kPread});
}

}  // namespace millrace::test
