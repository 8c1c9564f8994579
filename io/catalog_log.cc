#include "millrace/io/catalog_log.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "millrace/io/crc32.h"
#include "millrace/io/record_stream.h"
#include "millrace/io/zip_bytes.h"

namespace millrace {
namespace {

constexpr std::string_view kMagic{"MRCATLG\0", 8};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 16, kHeadBytes = 12;
constexpr std::uint32_t kMaxPayload = std::uint32_t{1} << 20;
// Scores, copied into their rows, may take so many times the bytes of the log.
constexpr std::uint64_t kScoreFactor = 16;

enum Kind : std::uint8_t { kRow, kScore, kPin, kEnd };  // in the file: the order of CatalogChange
enum Pinned : std::uint8_t { kNo, kYes, kUnknown };

void put(std::vector<std::byte>& out, std::uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<std::byte>(value >> shift));
}

std::uint8_t pin_byte(const std::optional<bool>& pinned) {
  return !pinned ? kUnknown : *pinned ? kYes : kNo;
}

void write(RecordWriter& out, const CatalogRow& row) {
  const CheckpointIdentity& id = row.identity;
  out(row.name, id.save_id, id.parent_id, id.generation, id.reason, id.epoch, id.iter, row.size,
      row.digest, row.saved_at_ns, row.scores_known, pin_byte(row.pinned),
      static_cast<std::uint64_t>(row.scores.size()));
  for (const auto& [metric, value] : row.scores) out(metric, value);
}

void write(RecordWriter& out, const CatalogScore& score) {
  out(score.save_id, score.metric, score.value);
}
void write(RecordWriter& out, const CatalogPin& pin) { out(pin.name, pin_byte(pin.pinned)); }
void write(RecordWriter& out, const CatalogEnd& end) { out(end.name); }

// What it adds to the payload of a row that does not have it.
std::size_t score_size(const CatalogScore& score) {
  return sizeof(std::uint64_t) + score.metric.size() + sizeof score.value;
}

std::optional<bool> read_pin(RecordReader& in) {
  std::uint8_t byte = 0;
  in(byte);
  if (byte > kUnknown) throw RecordError("a pin is neither set nor unset");
  if (byte == kUnknown) return std::nullopt;
  return byte == kYes;
}

CatalogChange read_row(RecordReader& in) {
  CatalogRow row;
  CheckpointIdentity& id = row.identity;
  std::uint8_t known = 0;
  in(row.name, id.save_id, id.parent_id, id.generation, id.reason, id.epoch, id.iter, row.size,
     row.digest, row.saved_at_ns, known);
  if (id.generation > kMaxGeneration) {
    throw RecordError("no save can have generation " + std::to_string(id.generation));
  }
  row.scores_known = known == 1;
  row.pinned = read_pin(in);
  for (std::size_t scores = in.count(2 * sizeof(std::uint64_t)); scores > 0; --scores) {
    std::string metric;
    double value = 0;
    in(metric, value);
    row.scores.insert_or_assign(std::move(metric), value);
  }
  return row;
}

CatalogChange read_change(RecordReader& in) {
  std::uint8_t kind = 0;
  in(kind);
  if (kind == kRow) return read_row(in);
  if (kind == kScore) {
    CatalogScore score;
    in(score.save_id, score.metric, score.value);
    return score;
  }
  std::string name;
  in(name);
  if (kind == kPin) {
    const std::optional<bool> pinned = read_pin(in);
    if (!pinned) throw RecordError("a pin is neither set nor unset");
    return CatalogPin{std::move(name), *pinned};
  }
  if (kind == kEnd) return CatalogEnd{std::move(name)};
  throw RecordError("the kind " + std::to_string(kind) + " is not known");
}

CatalogChange decode_change(std::span<const std::byte> payload) {
  RecordReader in({reinterpret_cast<const char*>(payload.data()), payload.size()});
  CatalogChange change = read_change(in);
  if (!in.finished()) throw RecordError("bytes follow its last field");
  return change;
}

auto find_name(std::vector<CatalogRow>& rows, const std::string& name) {
  return std::find_if(rows.begin(), rows.end(), [&](const auto& row) { return row.name == name; });
}

// Reads records until they end, or are no longer sound.
class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> bytes) : bytes_(bytes) { log_.bytes = bytes.size(); }

  CatalogLog run() {
    if (!header()) return std::move(log_);
    while (at_ < bytes_.size() && record()) ++log_.records;
    return std::move(log_);
  }

 private:
  bool stop(CatalogLog::State state, const std::string& what) {
    log_.state = state;
    log_.problem = "From byte " + std::to_string(at_) + " on " + what + ".";
    if (state != CatalogLog::State::corrupt) return false;
    for (CatalogRow& row : log_.rows) {
      row.scores.clear();
      row.scores_known = false;
      row.pinned.reset();
    }
    return false;
  }
  bool torn() { return stop(CatalogLog::State::torn, "a record was cut by a crash"); }
  bool corrupt(const std::string& what) { return stop(CatalogLog::State::corrupt, what); }

  bool header() {
    if (bytes_.size() < kHeaderBytes) return corrupt("its header was cut");
    if (std::memcmp(bytes_.data(), kMagic.data(), kMagic.size()) != 0) {
      return corrupt("it is no catalog");
    }
    zip::Cursor in(bytes_.subspan(kMagic.size()));
    const std::uint32_t version = in.u32(), crc = in.u32();
    if (crc != crc32(bytes_.first(kHeaderBytes - 4))) return corrupt("its header is damaged");
    if (version != kVersion) {
      log_.state = CatalogLog::State::newer;
      log_.problem =
          "It has format version " + std::to_string(version) + ", which a newer Millrace wrote.";
      return false;
    }
    at_ = kHeaderBytes;
    return true;
  }

  bool record() {
    const auto rest = bytes_.subspan(at_);
    if (rest.size() < kHeadBytes) return torn();
    zip::Cursor in(rest);
    const std::uint32_t length = in.u32(), length_crc = in.u32(), crc = in.u32();
    if (length_crc != crc32(rest.first(4)) || length > kMaxPayload) {
      return corrupt("a record's length is damaged");
    }
    if (length > in.left()) return torn();
    const auto payload = in.take(length);
    if (crc != crc32(payload)) return corrupt("a record is damaged");
    try {
      const CatalogChange change = decode_change(payload);
      const auto admit_one = [&](const auto& one) { return admit(one, length); };
      if (!std::visit(admit_one, change)) return false;
      apply_change(log_.rows, change);
    } catch (const RecordError& error) {
      return corrupt(std::string("a record cannot be understood: ") + error.what());
    }
    at_ += kHeadBytes + length;
    return true;
  }

  // Each before its change is made; they keep sizes_ in step with the rows.
  bool admit(const CatalogRow& row, std::size_t size) {
    forget(row.name);
    sizes_.push_back(size);
    return true;
  }
  bool admit(const CatalogPin&, std::size_t) { return true; }
  bool admit(const CatalogEnd& end, std::size_t) {
    forget(end.name);
    return true;
  }
  // A score is copied into every row of its save. A save has a row for each of its names, a few;
  // with many rows and many scores, rows times scores would be the memory of a small log.
  bool admit(const CatalogScore& score, std::size_t) {
    for (std::size_t i = 0; i < log_.rows.size(); ++i) {
      const CatalogRow& row = log_.rows[i];
      if (row.identity.save_id != score.save_id || score.save_id.empty()) continue;
      score_bytes_ += sizeof score + score.metric.size();
      if (!row.scores.contains(score.metric)) sizes_[i] += score_size(score);
      if (sizes_[i] > kMaxPayload) return corrupt("a row has more scores than a record can hold");
    }
    if (score_bytes_ <= kScoreFactor * bytes_.size()) return true;
    return corrupt("scores of one save are given to too many rows");
  }
  void forget(const std::string& name) {
    const auto row = find_name(log_.rows, name);
    if (row != log_.rows.end()) sizes_.erase(sizes_.begin() + (row - log_.rows.begin()));
  }

  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  std::uint64_t score_bytes_ = 0;
  std::vector<std::size_t> sizes_;  // of the rows' payloads, each with the scores it was given
  CatalogLog log_;
};

bool make(std::vector<CatalogRow>& rows, const CatalogRow& added) {
  const auto old = find_name(rows, added.name);
  if (old != rows.end()) rows.erase(old);
  rows.push_back(added);
  return true;
}

bool make(std::vector<CatalogRow>& rows, const CatalogScore& score) {
  bool found = false;
  for (CatalogRow& row : rows) {
    if (row.identity.save_id != score.save_id || score.save_id.empty()) continue;
    row.scores.insert_or_assign(score.metric, score.value);
    found = true;
  }
  return found;
}

bool make(std::vector<CatalogRow>& rows, const CatalogPin& pin) {
  const auto row = find_name(rows, pin.name);
  if (row == rows.end()) return false;
  row->pinned = pin.pinned;
  return true;
}

bool make(std::vector<CatalogRow>& rows, const CatalogEnd& end) {
  const auto row = find_name(rows, end.name);
  if (row == rows.end()) return false;
  rows.erase(row);
  return true;
}

}  // namespace

bool apply_change(std::vector<CatalogRow>& rows, const CatalogChange& change) {
  return std::visit([&](const auto& one) { return make(rows, one); }, change);
}

std::vector<std::byte> catalog_header() {
  std::vector<std::byte> out;
  for (const char c : kMagic) out.push_back(static_cast<std::byte>(c));
  put(out, kVersion);
  put(out, crc32(out));
  return out;
}

bool append_record(std::vector<std::byte>& log, const CatalogChange& change) {
  RecordWriter writer;
  writer(static_cast<std::uint8_t>(change.index()));
  std::visit([&](const auto& one) { write(writer, one); }, change);
  const std::string payload = std::move(writer).take();
  if (payload.size() > kMaxPayload) return false;
  const auto bytes = std::as_bytes(std::span(payload));
  const std::size_t head = log.size();
  put(log, static_cast<std::uint32_t>(payload.size()));
  put(log, crc32(std::span(log).subspan(head)));
  put(log, crc32(bytes));
  log.insert(log.end(), bytes.begin(), bytes.end());
  return true;
}

std::vector<std::byte> catalog_record(const CatalogChange& change) {
  std::vector<std::byte> record;
  if (!append_record(record, change)) {
    throw Error("catalog: a record exceeds the limit of " + std::to_string(kMaxPayload) + " bytes");
  }
  return record;
}

CatalogLog decode_catalog(std::span<const std::byte> bytes) { return Decoder(bytes).run(); }

}  // namespace millrace
