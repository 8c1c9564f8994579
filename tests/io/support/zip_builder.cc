#include "tests/io/support/zip_builder.h"

#include <zlib.h>

#include <stdexcept>

namespace millrace::test {
namespace {

class Output {
 public:
  void number(std::uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  }
  std::string text;
};

std::uint32_t true_crc(const std::string& content) {
  return static_cast<std::uint32_t>(::crc32(0, reinterpret_cast<const Bytef*>(content.data()),
                                            static_cast<uInt>(content.size())));
}

struct Written {
  std::uint64_t offset, stored_size;
};

// From the flags field to the sizes.
void shared_fields(Output& out, const ZipPart& part, std::uint32_t crc, std::uint64_t stored,
                   std::uint64_t size) {
  out.number(part.flags | (part.descriptor ? 8 : 0), 2);
  out.number(part.method != 0 ? part.method : part.deflate ? 8 : 0, 2);
  out.number(0, 4);
  out.number(crc, 4);
  out.number(part.zip64 ? 0xFFFFFFFF : stored, 4);
  out.number(part.zip64 ? 0xFFFFFFFF : size, 4);
}

void extra64(Output& out, std::uint64_t stored, std::uint64_t size) {
  out.number(1, 2);
  out.number(16, 2);
  out.number(size, 8);
  out.number(stored, 8);
}

Written local(Output& out, const ZipPart& part) {
  const std::string data = part.deflate ? deflated(part.content) : part.content;
  const std::string name = part.local_name.value_or(part.name);
  const Written written{out.text.size(), data.size()};
  const bool empty = part.descriptor;
  const std::uint32_t crc = part.crc.value_or(true_crc(part.content));
  const std::uint64_t stored = empty ? 0 : part.stored_size.value_or(data.size());
  const std::uint64_t size = empty ? 0 : part.size.value_or(part.content.size());
  out.number(0x04034b50, 4);
  out.number(20, 2);
  shared_fields(out, part, empty ? 0 : crc, stored, size);
  out.number(name.size(), 2);
  out.number(part.zip64 ? 20 : 0, 2);
  out.text += name;
  if (part.zip64) extra64(out, stored, size);
  out.text += data;
  if (part.descriptor && !part.no_descriptor) {
    const int width = part.zip64 ? 8 : 4;
    if (part.descriptor_signature) out.number(0x08074b50, 4);
    out.number(part.descriptor_crc.value_or(crc), 4);
    out.number(part.descriptor_stored.value_or(data.size()), width);
    out.number(part.descriptor_size.value_or(part.content.size()), width);
  }
  return written;
}

void central(Output& out, const ZipPart& part, const Written& written) {
  const std::uint64_t stored = part.stored_size.value_or(written.stored_size);
  const std::uint64_t size = part.size.value_or(part.content.size());
  out.number(0x02014b50, 4);
  out.number(20, 2);
  out.number(20, 2);
  shared_fields(out, part, part.crc.value_or(true_crc(part.content)), stored, size);
  out.number(part.name.size(), 2);
  out.number(part.zip64 ? 20 : 0, 2);
  out.number(0, 2), out.number(0, 2), out.number(0, 2), out.number(0, 4);
  out.number(part.header_offset.value_or(written.offset), 4);
  out.text += part.name;
  if (part.zip64) extra64(out, stored, size);
}

}  // namespace

std::string deflated(const std::string& text) {
  z_stream stream{};
  if (deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::runtime_error("deflateInit2");
  }
  std::string out(deflateBound(&stream, static_cast<uLong>(text.size())), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  ::deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::vector<std::byte> build_zip(const std::vector<ZipPart>& parts, const ZipShape& shape) {
  Output out;
  std::vector<Written> written;
  for (const ZipPart& part : parts) written.push_back(local(out, part));
  const std::uint64_t start = out.text.size();
  for (std::size_t i = 0; i < parts.size(); ++i) central(out, parts[i], written[i]);
  const std::uint64_t end = out.text.size();
  const std::uint64_t entries = shape.entries.value_or(parts.size());
  const std::uint64_t offset = shape.directory_offset.value_or(start);
  const std::uint64_t size = shape.directory_size.value_or(end - start);
  if (shape.zip64_end) {
    out.number(0x06064b50, 4), out.number(44, 8), out.number(45, 2), out.number(45, 2);
    out.number(0, 8), out.number(entries, 8), out.number(entries, 8);
    out.number(size, 8), out.number(offset, 8);
    out.number(0x07064b50, 4), out.number(0, 4), out.number(end, 8), out.number(1, 4);
  }
  const bool wide = shape.zip64_end;
  out.number(0x06054b50, 4), out.number(0, 4);
  out.number(wide ? 0xFFFF : entries, 2), out.number(wide ? 0xFFFF : entries, 2);
  out.number(wide ? 0xFFFFFFFF : size, 4), out.number(wide ? 0xFFFFFFFF : offset, 4);
  out.number(shape.comment.size(), 2);
  out.text += shape.comment;
  const auto* data = reinterpret_cast<const std::byte*>(out.text.data());
  return {data, data + out.text.size()};
}

}  // namespace millrace::test
