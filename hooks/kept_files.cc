#include "millrace/hooks/kept_files.h"

#include <algorithm>
#include <utility>

#include "millrace/io/record_stream.h"

namespace millrace {

std::vector<RetainedFile>::iterator KeptFiles::find(std::string_view save_id) {
  return std::find_if(planned_.begin(), planned_.end(),
                      [&](const RetainedFile& file) { return file.save_id == save_id; });
}

std::vector<std::string> KeptFiles::committed(std::string_view save_id) {
  const auto found = find(save_id);
  if (found == planned_.end()) return {};
  RetainedFile file = std::move(*found);
  planned_.erase(found);
  return kept_.committed(std::move(file));
}

void KeptFiles::given_up(const CheckpointRow& row) {
  const auto found = find(row.save_id);
  if (found == planned_.end()) return;
  if (row.in_place) kept_.found(std::move(*found));
  planned_.erase(found);
}

std::vector<std::string> KeptFiles::pin(std::string_view name, bool pinned) {
  for (RetainedFile& file : planned_) {
    if (file.name == name) file.pinned = pinned;
  }
  return kept_.pin(name, pinned);
}

bool KeptFiles::pinned_on_its_way(std::string_view save_id) const {
  return std::any_of(planned_.begin(), planned_.end(), [&](const RetainedFile& file) {
    return file.save_id == save_id && file.pinned == true;
  });
}

bool KeptFiles::on_its_way(std::string_view name) const {
  return std::any_of(planned_.begin(), planned_.end(),
                     [&](const RetainedFile& file) { return file.name == name; });
}

std::vector<std::int64_t> KeptFiles::steps() const {
  std::vector<std::int64_t> steps;
  const Retention ahead = kept_.ahead(planned_);
  for (const RetainedFile& file : ahead.newest()) {
    if (file.step) steps.push_back(*file.step);
  }
  return steps;
}

void KeptFiles::adopt(std::vector<RetainedFile> files) {
  kept_.restore(std::move(files));
  known_ = true;
}

void KeptFiles::reconcile(const std::vector<CatalogRow>& rows) {
  std::vector<RetainedFile> kept;
  for (RetainedFile file : kept_.files()) {
    const auto row = std::find_if(rows.begin(), rows.end(),
                                  [&](const CatalogRow& r) { return r.name == file.name; });
    if (row == rows.end()) continue;
    if (file.save_id != row->identity.save_id) continue;
    if (row->pinned) {
      file.pinned = row->pinned;
    } else if (!file.save_id.empty() && file.pinned == false) {
      file.pinned.reset();  // lost with the catalog: it may have been set since
    }
    kept.push_back(std::move(file));
  }
  kept_.restore(std::move(kept));
}

// Columns: names, save ids, steps (-1: none), times, pins (2: unknown).
void KeptFiles::save(RecordWriter& out) const {
  std::vector<std::string> names, ids;
  std::vector<std::int64_t> steps, times;
  std::vector<std::uint8_t> pins;
  std::vector<RetainedFile> files = kept_.files();
  // Where all are kept there is no list, not even of those on their way.
  if (rules_.last > 0) files.insert(files.end(), planned_.begin(), planned_.end());
  for (const RetainedFile& file : files) {
    names.push_back(file.name);
    ids.push_back(file.save_id);
    steps.push_back(file.step.value_or(-1));
    times.push_back(file.saved_at_ns);
    pins.push_back(file.pinned ? (*file.pinned ? 1 : 0) : 2);
  }
  out(names, ids, steps, times, pins);
}

void KeptFiles::load(RecordReader& in) {
  std::vector<std::string> names, ids;
  std::vector<std::int64_t> steps, times;
  std::vector<std::uint8_t> pins;
  in(names, ids, steps, times, pins);
  const std::size_t count = names.size();
  if (ids.size() != count || steps.size() != count || times.size() != count ||
      pins.size() != count) {
    throw RecordError("the list of kept checkpoints differs in number from what belongs to it");
  }
  std::vector<RetainedFile> files;
  for (std::size_t i = 0; i < count; ++i) {
    RetainedFile file{names[i], ids[i], {}, times[i], {}};
    if (steps[i] >= 0) file.step = steps[i];
    if (pins[i] < 2) file.pinned = pins[i] == 1;
    files.push_back(std::move(file));
  }
  adopt(std::move(files));
}

}  // namespace millrace
