// Which checkpoints to keep. Pure data: ids in, ids out; no file is touched here.
//
// LastN is the regular series under max_keep_ckpts, as a list of step numbers with the newest last.
// It differs from the reference in when things happen, not in what is kept:
//
//  * an id enters the list when its file is committed, so a failed save takes no slot, and the
//    oldest file goes only after its successor is durable (max_keep_ckpts = 1 is safe);
//  * saving the newest id again rotates nothing. An older id that is saved again (by another
//    branch) moves to the end, so that a file is never both listed and given up;
//  * restoring a longer list, as after lowering max_keep_ckpts, shortens the list at once but
//    gives the surplus up with the next commit.
//
// A small value without threads: copy it to look ahead.
#pragma once

#include <cstdint>
#include <vector>

namespace millrace {

class LastN {
 public:
  // max_keep_ckpts <= 0 keeps every file, and keeps no list.
  explicit LastN(std::int64_t max_keep_ckpts = -1) : max_keep_(max_keep_ckpts) {}

  // After `id` was committed: the ids whose files to retire now, oldest first.
  std::vector<std::int64_t> committed(std::int64_t id);

  // The list, oldest first.
  const std::vector<std::int64_t>& ids() const noexcept { return ids_; }
  // The list once `id` is committed: what the file of `id` says about itself (`keep_ckpt_ids`).
  std::vector<std::int64_t> ids_after(std::int64_t id) const;

  // For our own state, captured with `id`: ids_after(id), preceded by those its commit gives up. A
  // crash between commit and retire then leaves no orphan, because restore() finds them again.
  std::vector<std::int64_t> saved_after(std::int64_t id) const;
  // Takes a list of ids_after() or saved_after(); a repeated id counts where it stands last.
  void restore(const std::vector<std::int64_t>& ids);

 private:
  void add(std::int64_t id);

  std::int64_t max_keep_;
  std::vector<std::int64_t> ids_;
  std::vector<std::int64_t> surplus_;  // no longer listed, given up with the next commit
};

}  // namespace millrace
