#include "millrace/io/retention.h"

#include <algorithm>
#include <set>
#include <utility>

namespace millrace {

void Retention::add(RetainedFile file) {
  std::erase_if(files_, [&](const RetainedFile& other) { return other.name == file.name; });
  files_.push_back(std::move(file));
}

// One walk, oldest first. A file that `per` keeps stays for ever, so the walk over what is left
// gives the same answer as one over all that ever was.
std::vector<std::string> Retention::take_surplus() {
  const std::size_t last = static_cast<std::size_t>(rules_.last);
  const std::size_t counted_from = files_.size() > last ? files_.size() - last : 0;
  std::vector<std::string> surplus;
  std::vector<RetainedFile> kept;
  std::optional<std::int64_t> span_start;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    RetainedFile& file = files_[i];
    bool keep = i >= counted_from || file.pinned.value_or(true);
    if (rules_.every > 0 && file.step && *file.step % rules_.every == 0) keep = true;
    if (rules_.per.count() > 0 &&
        (!span_start || file.saved_at_ns - *span_start >= rules_.per.count())) {
      span_start = file.saved_at_ns;
      keep = true;
    }
    if (keep) {
      kept.push_back(std::move(file));
    } else {
      surplus.push_back(std::move(file.name));
    }
  }
  files_ = std::move(kept);
  return surplus;
}

std::vector<std::string> Retention::committed(RetainedFile file) {
  if (keeps_all()) return {};
  add(std::move(file));
  return take_surplus();
}

void Retention::found(RetainedFile file) {
  if (!keeps_all()) add(std::move(file));
}

std::vector<std::string> Retention::pin(std::string_view name, bool pinned) {
  for (RetainedFile& file : files_) {
    if (file.name == name) file.pinned = pinned;
  }
  return keeps_all() || pinned ? std::vector<std::string>() : take_surplus();
}

std::vector<RetainedFile> Retention::newest() const {
  if (keeps_all()) return {};
  const auto count = std::min(files_.size(), static_cast<std::size_t>(rules_.last));
  return {files_.end() - static_cast<std::ptrdiff_t>(count), files_.end()};
}

Retention Retention::ahead(const std::vector<RetainedFile>& files) const {
  Retention copy = *this;
  for (const RetainedFile& file : files) copy.committed(file);
  return copy;
}

void Retention::restore(std::vector<RetainedFile> files) {
  files_.clear();
  if (keeps_all()) return;
  for (RetainedFile& file : files) add(std::move(file));
}

bool BestFiles::qualifies(double score) const {
  if (score != score) return false;  // NaN is never best, and does not block later values
  const auto as_good = std::count_if(files_.begin(), files_.end(), [&](const BestFile& file) {
    return file.score && !better_(score, *file.score);
  });
  return static_cast<std::size_t>(as_good) < count_;
}

std::vector<std::string> BestFiles::take_surplus() {
  std::vector<BestFile*> ranked;
  for (BestFile& file : files_) {
    if (file.score) ranked.push_back(&file);
  }
  std::sort(ranked.begin(), ranked.end(), [this](const BestFile* a, const BestFile* b) {
    if (better_(*a->score, *b->score)) return true;
    return !better_(*b->score, *a->score) && a < b;  // the earliest of equally good ones is kept
  });
  std::vector<std::string> surplus;
  std::set<const BestFile*> gone;
  for (std::size_t i = ranked.size(); i > count_; --i) {
    if (ranked[i - 1]->pinned.value_or(true)) continue;
    surplus.push_back(ranked[i - 1]->name);
    gone.insert(ranked[i - 1]);
  }
  std::vector<BestFile> kept;
  for (BestFile& file : files_) {
    if (!gone.contains(&file)) kept.push_back(std::move(file));
  }
  files_ = std::move(kept);
  return surplus;
}

std::vector<std::string> BestFiles::committed(BestFile file) {
  found(std::move(file));
  return take_surplus();
}

void BestFiles::found(BestFile file) {
  std::erase_if(files_, [&](const BestFile& other) { return other.name == file.name; });
  files_.push_back(std::move(file));
}

std::vector<std::string> BestFiles::pin(std::string_view name, bool pinned) {
  for (BestFile& file : files_) {
    if (file.name == name) file.pinned = pinned;
  }
  return pinned ? std::vector<std::string>() : take_surplus();
}

const BestFile* BestFiles::best() const {
  const BestFile* best = nullptr;
  for (const BestFile& file : files_) {
    if (file.score && (best == nullptr || better_(*file.score, *best->score))) best = &file;
  }
  return best;
}

}  // namespace millrace
