#include "millrace/io/retention.h"

#include <utility>

namespace millrace {

void LastN::add(std::int64_t id) {
  std::erase(ids_, id);
  std::erase(surplus_, id);
  ids_.push_back(id);
  while (ids_.size() > static_cast<std::uint64_t>(max_keep_)) {
    surplus_.push_back(ids_.front());
    ids_.erase(ids_.begin());
  }
}

std::vector<std::int64_t> LastN::committed(std::int64_t id) {
  if (max_keep_ <= 0) return {};
  add(id);
  return std::exchange(surplus_, {});
}

std::vector<std::int64_t> LastN::ids_after(std::int64_t id) const {
  LastN ahead = *this;
  ahead.committed(id);
  return ahead.ids_;
}

std::vector<std::int64_t> LastN::saved_after(std::int64_t id) const {
  LastN ahead = *this;
  std::vector<std::int64_t> ids = ahead.committed(id);
  ids.insert(ids.end(), ahead.ids_.begin(), ahead.ids_.end());
  return ids;
}

void LastN::restore(const std::vector<std::int64_t>& ids) {
  ids_.clear();
  surplus_.clear();
  if (max_keep_ <= 0) return;
  for (const std::int64_t id : ids) add(id);
}

}  // namespace millrace
