// Which checkpoints to keep. Pure data: rows in, names out; no file is touched here.
//
// Two series, each a small value without threads (copy one to look ahead):
//
//   Retention   the regular files, oldest first: the newest N, every N-th for ever, one per span of
//               time, and what is pinned
//   BestFiles   the best K files of one metric
//
// A file enters when it is committed, so a failed save takes no slot and the oldest goes only after
// its successor is durable (keeping one is safe). What is not known means keep: a pin that was lost
// with the catalog, a score likewise.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace millrace {

struct RetentionRules {
  std::int64_t last = -1;           // the newest N; below 1: all files, and no list is kept
  std::int64_t every = 0;           // steps divisible by N, for ever; 0: none
  std::chrono::nanoseconds per{0};  // the first file of each span, counted from the last such; 0:
                                    // none
};

struct RetainedFile {
  std::string name;     // epoch_3.pth
  std::string save_id;  // empty: another program's file
  // In the numbering of its name; nothing for a file saved inside an epoch of a run that counts
  // epochs, which `every` does not protect.
  std::optional<std::int64_t> step;
  std::int64_t saved_at_ns = 0;        // since the Unix epoch
  std::optional<bool> pinned = false;  // nothing: unknown
};

class Retention {
 public:
  explicit Retention(RetentionRules rules = {}) : rules_(rules) {}

  // After `file` was committed: the names to retire now, oldest first. A name that is listed
  // already moves to the end; saving the newest one again rotates nothing.
  std::vector<std::string> committed(RetainedFile file);
  // A file that is there, though its commit failed half-way: listed, and nothing is given up for
  // it.
  void found(RetainedFile file);
  // A pin was set or taken away: the names to retire now. Unknown names are ignored.
  std::vector<std::string> pin(std::string_view name, bool pinned);

  // All files, oldest first: those of the newest N, and those kept by another rule.
  const std::vector<RetainedFile>& files() const noexcept { return files_; }
  // The files the `last` rule counts, oldest first.
  std::vector<RetainedFile> newest() const;
  // The list as it will be when `files` have been committed one after the other; nothing retired
  // is in it.
  Retention ahead(const std::vector<RetainedFile>& files) const;

  // Takes a list of files(), oldest first. What exceeds the rules goes with the next commit.
  void restore(std::vector<RetainedFile> files);

 private:
  bool keeps_all() const noexcept { return rules_.last < 1; }
  void add(RetainedFile file);
  std::vector<std::string> take_surplus();

  RetentionRules rules_;
  std::vector<RetainedFile> files_;
};

// True when score `a` is better than `b`.
using BetterScore = std::function<bool(double a, double b)>;

struct BestFile {
  std::string name;                    // best_acc_epoch_3.pth
  std::string save_id;                 // of the state in it
  std::optional<double> score;         // nothing: unknown, never given up
  std::optional<bool> pinned = false;  // nothing: unknown
};

class BestFiles {
 public:
  // `count` at least 1.
  BestFiles(BetterScore better, std::int64_t count)
      : better_(std::move(better)), count_(static_cast<std::size_t>(count)) {}

  // Whether a file of this score would be among the best. Ties keep the earlier one.
  bool qualifies(double score) const;
  // After `file` was committed: the names that are no longer among the best, the worst first. A
  // pinned one is not given up, and takes no better one's place.
  std::vector<std::string> committed(BestFile file);
  // A file that is there, though its commit failed half-way: listed, and nothing is given up for
  // it.
  void found(BestFile file);
  // A pin was set or taken away: the names to retire now. Unknown names are ignored.
  std::vector<std::string> pin(std::string_view name, bool pinned);
  // In the order they were added.
  const std::vector<BestFile>& files() const noexcept { return files_; }
  // The best known one, or null.
  const BestFile* best() const;
  void restore(std::vector<BestFile> files) { files_ = std::move(files); }

 private:
  std::vector<std::string> take_surplus();

  BetterScore better_;
  std::size_t count_;
  std::vector<BestFile> files_;
};

}  // namespace millrace
