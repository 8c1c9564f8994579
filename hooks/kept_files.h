// The regular files of a series: those that are committed, as Retention keeps them, and those on
// their way. CheckpointHook's; train context; no I/O.
//
// A file on its way is counted in what a checkpoint says about itself, and not in what is given up:
// nothing goes before its successor is durable.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "millrace/events/checkpoint_events.h"
#include "millrace/io/catalog_row.h"
#include "millrace/io/retention.h"

namespace millrace {

class RecordReader;
class RecordWriter;

class KeptFiles {
 public:
  explicit KeptFiles(RetentionRules rules) : rules_(rules), kept_(rules) {}

  // Captured. Then one of the other two, by save id.
  void plan(RetainedFile file) { planned_.push_back(std::move(file)); }
  bool idle() const noexcept { return planned_.empty(); }
  // The names to retire now; none for a save that was not planned here.
  std::vector<std::string> committed(std::string_view save_id);
  // One that is in place all the same is kept, and nothing is given up for it.
  void given_up(const CheckpointRow& row);

  // The names to retire now.
  std::vector<std::string> pin(std::string_view name, bool pinned);
  // Whether a file of that name is on its way.
  bool on_its_way(std::string_view name) const;
  // Whether the save is on its way and shall be kept for ever.
  bool pinned_on_its_way(std::string_view save_id) const;

  // The steps that the `last` rule will count once everything on its way is there, oldest first.
  std::vector<std::int64_t> steps() const;

  // Whether the list is this program's own; else it may be taken from another program's.
  bool known() const noexcept { return known_; }
  void adopt(std::vector<RetainedFile> files);
  // After a resume: a file that is gone, or whose name another branch has taken, is no longer ours
  // to count or to remove. One of ours whose pin was lost with the catalog is kept.
  void reconcile(const std::vector<CatalogRow>& rows);

  // With what is on its way: should a crash come before a commit gives up what it has to, the next
  // run does it. load() throws RecordError.
  void save(RecordWriter& out) const;
  void load(RecordReader& in);

 private:
  std::vector<RetainedFile>::iterator find(std::string_view save_id);

  RetentionRules rules_;
  Retention kept_;
  std::vector<RetainedFile> planned_;  // in the order they were captured
  bool known_ = false;
};

}  // namespace millrace
