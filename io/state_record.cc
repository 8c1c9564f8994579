#include "millrace/io/state_record.h"

#include <algorithm>
#include <cereal/archives/portable_binary.hpp>
#include <cereal/types/map.hpp>
#include <cereal/types/string.hpp>
#include <istream>
#include <ostream>
#include <random>
#include <streambuf>

#include "millrace/io/crc32.h"
#include "millrace/io/zip_bytes.h"

namespace millrace {
namespace {

constexpr std::string_view kMagic{"MRSTATE\0", 8};
constexpr std::size_t kHeaderBytes = 32;
constexpr std::uint32_t kVersion = 1;

// A stream over bytes that are there, which knows how many are left.
class SpanBuffer final : public std::streambuf {
 public:
  explicit SpanBuffer(std::span<const std::byte> bytes) {
    // A get area is char*, though nothing writes to it.
    auto* first = reinterpret_cast<char*>(const_cast<std::byte*>(bytes.data()));
    setg(first, first, first + bytes.size());
  }
  std::uint64_t left() const { return static_cast<std::uint64_t>(egptr() - gptr()); }
};

class VectorBuffer final : public std::streambuf {
 public:
  explicit VectorBuffer(std::vector<std::byte>& out) : out_(out) {}

 protected:
  std::streamsize xsputn(const char* text, std::streamsize size) override {
    const auto* first = reinterpret_cast<const std::byte*>(text);
    out_.insert(out_.end(), first, first + size);
    return size;
  }
  int_type overflow(int_type c) override {
    if (c != traits_type::eof()) out_.push_back(static_cast<std::byte>(c));
    return traits_type::not_eof(c);
  }

 private:
  std::vector<std::byte>& out_;
};

// cereal's own readers of strings and maps allocate what a length says. These take the same bytes
// and compare the length with what is left first.
class BoundedReader {
 public:
  explicit BoundedReader(std::span<const std::byte> payload)
      : buffer_(payload), stream_(&buffer_), archive_(stream_) {}

  template <class Number>
  void number(Number& value) {
    archive_(value);
  }
  void text(std::string& value) {
    value.resize(size(1));
    archive_(cereal::binary_data(value.data(), value.size()));
  }
  // A count of items of at least `least` bytes each.
  std::uint64_t size(std::uint64_t least) {
    cereal::size_type count = 0;
    archive_(cereal::make_size_tag(count));
    if (count > buffer_.left() / least) throw cereal::Exception("a length exceeds the record");
    return count;
  }
  bool finished() const { return buffer_.left() == 0; }

 private:
  SpanBuffer buffer_;
  std::istream stream_;
  cereal::PortableBinaryInputArchive archive_;
};

void put(std::vector<std::byte>& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<std::byte>(value >> (8 * i)));
}

Fault make_fault(Fault::Kind kind, std::string what) {
  return {kind, "millrace/state", std::move(what)};
}

Result<StateRecord> decode_payload(std::span<const std::byte> payload) {
  try {
    BoundedReader in(payload);
    StateRecord record;
    CheckpointIdentity& identity = record.identity;
    in.text(identity.save_id);
    in.text(identity.parent_id);
    in.number(identity.generation);
    in.text(identity.reason);
    in.number(identity.epoch);
    in.number(identity.iter);
    if (identity.generation > kMaxGeneration) {
      return make_fault(Fault::Kind::corrupt, "The state record claims generation " +
                                                  std::to_string(identity.generation) +
                                                  ", which no save can have.");
    }
    for (std::uint64_t count = in.size(2 * sizeof(cereal::size_type)); count > 0; --count) {
      std::string name, bytes;
      in.text(name);
      in.text(bytes);
      if (!record.sections.emplace(std::move(name), std::move(bytes)).second) {
        return make_fault(Fault::Kind::corrupt, "The state record has a section twice.");
      }
    }
    if (!in.finished()) {
      return make_fault(Fault::Kind::corrupt, "The state record goes on after its last section.");
    }
    return record;
  } catch (const cereal::Exception& problem) {
    return make_fault(Fault::Kind::corrupt,
                      std::string("The state record is damaged: ") + problem.what() + ".");
  }
}

}  // namespace

std::string new_save_id() {
  std::random_device device;
  std::string id;
  for (int word = 0; word < 4; ++word) {
    const std::uint32_t bits = device();
    for (int shift = 28; shift >= 0; shift -= 4) id += "0123456789abcdef"[bits >> shift & 0xF];
  }
  return id;
}

std::vector<std::byte> encode_state_record(const StateRecord& record) {
  std::vector<std::byte> payload;
  VectorBuffer buffer(payload);
  std::ostream stream(&buffer);
  {
    const auto little = cereal::PortableBinaryOutputArchive::Options::LittleEndian();
    cereal::PortableBinaryOutputArchive archive(stream, little);
    const CheckpointIdentity& identity = record.identity;
    archive(identity.save_id, identity.parent_id, identity.generation, identity.reason,
            identity.epoch, identity.iter, record.sections);
  }
  std::vector<std::byte> out;
  out.reserve(kHeaderBytes + payload.size());
  for (const char c : kMagic) out.push_back(static_cast<std::byte>(c));
  put(out, kVersion, 4);
  put(out, 0, 4);
  put(out, payload.size(), 8);
  put(out, crc32(payload), 4);
  put(out, crc32(out), 4);
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

Result<StateRecord> decode_state_record(std::span<const std::byte> bytes) {
  const auto known = bytes.first(std::min(bytes.size(), kMagic.size()));
  if (!std::equal(known.begin(), known.end(), std::as_bytes(std::span(kMagic)).begin())) {
    return make_fault(Fault::Kind::foreign, "These bytes are not a Millrace state record.");
  }
  if (bytes.size() < kHeaderBytes) {
    return make_fault(Fault::Kind::truncated, "The state record ends inside its header.");
  }
  zip::Cursor in(bytes.subspan(kMagic.size()));
  const std::uint32_t version = in.u32(), reserved = in.u32();
  const std::uint64_t size = in.u64();
  const std::uint32_t payload_crc = in.u32(), header_crc = in.u32();
  if (header_crc != crc32(bytes.first(kHeaderBytes - 4))) {
    return make_fault(Fault::Kind::corrupt, "The state record's header is damaged.");
  }
  if (version != kVersion || reserved != 0) {
    return make_fault(Fault::Kind::foreign, "The state record has format version " +
                                                std::to_string(version) +
                                                "; a newer Millrace wrote it.");
  }
  const auto payload = bytes.subspan(kHeaderBytes);
  if (payload.size() < size) {
    return make_fault(Fault::Kind::truncated, "The state record was cut short.");
  }
  if (payload.size() > size || payload_crc != crc32(payload)) {
    return make_fault(Fault::Kind::corrupt, "The state record's bytes do not match its checksum.");
  }
  return decode_payload(payload);
}

}  // namespace millrace
