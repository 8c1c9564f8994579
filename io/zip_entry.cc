// One entry of a zip: its local header, and its content.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <memory>

#include "millrace/io/crc32.h"
#include "millrace/io/zip_bytes.h"
#include "millrace/io/zip_directory.h"
#include "millrace/io/zip_format.h"

namespace millrace {
namespace {

constexpr std::size_t kPiece = std::size_t{256} * 1024;

Fault corrupt(const ZipEntry& entry, std::string what) {
  return {Fault::Kind::corrupt, entry.name, std::move(what)};
}

struct LocalHeader {
  std::uint32_t signature, crc;
  std::uint16_t flags, method, name_size, extra_size;
  std::uint64_t stored_size, size;
};

LocalHeader parse(std::span<const std::byte> bytes) {
  zip::Cursor in(bytes);
  LocalHeader header{};
  header.signature = in.u32();
  in.take(2);
  header.flags = in.u16();
  header.method = in.u16();
  in.take(4);
  header.crc = in.u32();
  header.stored_size = in.u32();
  header.size = in.u32();
  header.name_size = in.u16();
  header.extra_size = in.u16();
  return header;
}

bool has_descriptor(const LocalHeader& header, const ZipEntry& entry) {
  return ((header.flags | entry.flags) & zip::kDescriptorFlag) != 0;
}

// What a local header says of its entry.
struct Located {
  std::uint64_t data;  // where the content starts
  bool descriptor;     // whether CRC and sizes follow it
  bool wide;           // whether there are ZIP64 sizes, which makes those of a descriptor wide
};

bool sizes_agree(LocalHeader header, std::span<const std::byte> extra64, const ZipEntry& entry) {
  zip::Cursor wide(extra64);
  if (header.size == zip::kIn64 && !extra64.empty()) header.size = wide.u64();
  if (header.stored_size == zip::kIn64 && !extra64.empty()) header.stored_size = wide.u64();
  // With a data descriptor the true values follow the data, and zeros may stand here.
  const bool descriptor = has_descriptor(header, entry);
  const auto agree = [&](std::uint64_t here, std::uint64_t there) {
    return here == there || (descriptor && here == 0);
  };
  return wide.ok() && agree(header.size, entry.size) &&
         agree(header.stored_size, entry.stored_size) && agree(header.crc, entry.crc);
}

// Inflates piece by piece. The state is released with the object.
class Inflater {
 public:
  Inflater() { ready_ = inflateInit2(&stream_, -MAX_WBITS) == Z_OK; }
  ~Inflater() {
    if (ready_) inflateEnd(&stream_);
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  bool ready() const { return ready_; }
  bool needs_input() const { return stream_.avail_in == 0; }
  void feed(std::span<const std::byte> bytes) {
    // zlib's interface predates const; it does not write to its input.
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
  }
  // Fills part of `out`; zlib's status.
  int step(std::span<std::byte> out, std::size_t& made) {
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    const int status = ::inflate(&stream_, Z_NO_FLUSH);
    made = out.size() - stream_.avail_out;
    return status;
  }

 private:
  z_stream stream_{};
  bool ready_ = false;
};

// The content's CRC-32, or a fault.
Result<std::uint32_t> inflate_content(const StoredObject& object, const ZipEntry& entry,
                                      std::uint64_t at, const ZipRoom& room) {
  Inflater inflater;
  if (!inflater.ready()) throw std::bad_alloc();
  std::vector<std::byte> input(std::min<std::uint64_t>(kPiece, entry.stored_size));
  std::vector<std::byte> output(std::size_t{64} * 1024);
  std::uint64_t taken = 0, made_in_all = 0;
  std::uint32_t crc = 0;
  for (int status = Z_OK; status != Z_STREAM_END;) {
    if (inflater.needs_input() && taken < entry.stored_size) {
      const auto piece = std::span(input).first(
          static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, entry.stored_size - taken)));
      object.read(at + taken, piece);
      taken += piece.size();
      inflater.feed(piece);
    }
    std::size_t made = 0;
    status = inflater.step(output, made);
    if ((status != Z_OK && status != Z_STREAM_END) || made > entry.size - made_in_all) {
      return corrupt(entry, "The compressed data is damaged.");
    }
    for (auto left = std::span<const std::byte>(output).first(made); !left.empty();) {
      const auto piece = room(left.size());
      crc = copy_with_crc(piece, left.first(piece.size()), crc);
      left = left.subspan(piece.size());
    }
    made_in_all += made;
  }
  if (made_in_all != entry.size || taken != entry.stored_size || !inflater.needs_input()) {
    return corrupt(entry, "The compressed data does not have the size the directory says.");
  }
  return crc;
}

std::uint32_t copy_content(const StoredObject& object, const ZipEntry& entry, std::uint64_t at,
                           const ZipRoom& room) {
  std::uint32_t crc = 0;
  for (std::uint64_t done = 0; done < entry.size;) {
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(kPiece, entry.size - done));
    const auto piece = room(size);
    object.read(at + done, piece);
    crc = crc32(piece, crc);
    done += piece.size();
  }
  return crc;
}

Result<Located> locate(const StoredObject& object, const ZipEntry& entry) {
  std::array<std::byte, zip::kLocalBytes> fixed{};
  object.read(entry.header_offset, fixed);
  const LocalHeader header = parse(fixed);
  const std::uint64_t data =
      entry.header_offset + zip::kLocalBytes + header.name_size + header.extra_size;
  if (header.signature != zip::kLocalSignature || header.name_size != entry.name.size() ||
      (header.flags & 0x2041) != 0 || (header.method == 8) != entry.deflated ||
      (header.method != 0 && header.method != 8)) {
    return corrupt(entry, "The entry's own header is not what the directory says.");
  }
  if (data > entry.end_limit || entry.stored_size > entry.end_limit - data) {
    return corrupt(entry, "The entry reaches into the next one or past the end of the file.");
  }
  std::vector<std::byte> rest(std::size_t{header.name_size} + header.extra_size);
  object.read(entry.header_offset + zip::kLocalBytes, rest);
  const std::string_view name(reinterpret_cast<const char*>(rest.data()), header.name_size);
  const auto extra64 = zip::find_extra64(std::span(rest).subspan(name.size()));
  if (name != entry.name || !extra64 || !sizes_agree(header, *extra64, entry)) {
    return corrupt(entry, "The entry's own header is not what the directory says.");
  }
  return Located{data, has_descriptor(header, entry), !extra64->empty()};
}

// A descriptor may come with its signature or without, and with sizes of 4 or 8 bytes. PyTorch
// writes none behind an empty entry.
bool descriptor_agrees(const StoredObject& object, const ZipEntry& entry, const Located& located) {
  const std::uint64_t data_end = located.data + entry.stored_size;
  std::array<std::byte, zip::kDescriptorBytes> bytes{};
  const auto room = std::span(bytes).first(
      static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), entry.end_limit - data_end)));
  if (room.empty()) return entry.size == 0;
  object.read(data_end, room);
  for (const std::size_t width : {8, 4}) {
    if (located.wide && width == 4) continue;
    for (const bool with_signature : {true, false}) {
      zip::Cursor in(room);
      const bool signed_right = !with_signature || in.u32() == zip::kDescriptorSignature;
      if (signed_right && in.u32() == entry.crc && in.number(width) == entry.stored_size &&
          in.number(width) == entry.size && in.ok()) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace

Result<std::uint64_t> locate_entry(const StoredObject& object, const ZipEntry& entry) {
  const auto located = locate(object, entry);
  if (!located) return located.fault();
  return located.value().data;
}

Result<std::uint32_t> read_entry(const StoredObject& object, const ZipEntry& entry, bool check_crc,
                                 const ZipRoom& room) {
  const auto located = locate(object, entry);
  if (!located) return located.fault();
  const std::uint64_t at = located.value().data;
  std::uint32_t crc = 0;
  if (entry.deflated) {
    const auto inflated = inflate_content(object, entry, at, room);
    if (!inflated) return inflated.fault();
    crc = inflated.value();
  } else {
    crc = copy_content(object, entry, at, room);
  }
  if (check_crc && crc != entry.crc) {
    return corrupt(entry, "The entry's CRC-32 does not match its bytes: the file is damaged.");
  }
  if (check_crc && located.value().descriptor &&
      !descriptor_agrees(object, entry, located.value())) {
    return corrupt(entry, "The values behind the entry's data are not what the directory says.");
  }
  return crc;
}

}  // namespace millrace
