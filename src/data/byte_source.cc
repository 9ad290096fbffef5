// SPDX-License-Identifier: Apache-2.0
#include "data/byte_source.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "data/open_input.h"
#include "storage/path.h"

namespace millstream {
namespace {

constexpr std::size_t kChunkBytes = std::size_t{256} << 10;
constexpr std::uint64_t kRatioMax = 1000;
constexpr std::uint64_t kRatioFreeBytes = std::uint64_t{1} << 20;
// A zstd frame may ask for a window of 2 GiB; real files stay at or below 128 MiB (--long=27).
constexpr int kZstdWindowLogMax = 27;

// The bytes as they are stored: what the two kinds of files share.
class StoredSource : public ByteSource {
 public:
  explicit StoredSource(bool with_hash) {
    if (with_hash) hash_.reset(XXH3_createState());
    if (hash_) XXH3_64bits_reset(hash_.get());
  }

  Result<std::size_t> Read(char* out, std::size_t size) final {
    std::size_t filled = 0;
    while (filled < size) {
      MS_ASSIGN_OR_RETURN(const std::size_t got, ReadSome(out + filled, size - filled));
      if (got == 0) break;
      filled += got;
    }
    if (hash_) XXH3_64bits_update(hash_.get(), out, filled);
    bytes_read_ += filled;
    return filled;
  }
  std::uint64_t bytes_read() const override { return bytes_read_; }
  std::uint64_t hash() const override { return hash_ ? XXH3_64bits_digest(hash_.get()) : 0; }

 private:
  struct FreeHash {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };

  // May read fewer bytes than fit; 0 at the end.
  virtual Result<std::size_t> ReadSome(char* out, std::size_t size) = 0;

  std::uint64_t bytes_read_ = 0;
  std::unique_ptr<XXH3_state_t, FreeHash> hash_;
};

class LocalSource final : public StoredSource {
 public:
  LocalSource(int fd, std::string path, bool with_hash)
      : StoredSource(with_hash), fd_(fd), path_(std::move(path)) {}
  ~LocalSource() override { ::close(fd_); }
  LocalSource(const LocalSource&) = delete;
  LocalSource& operator=(const LocalSource&) = delete;

 private:
  Result<std::size_t> ReadSome(char* out, std::size_t size) override {
    for (;;) {
      const ssize_t got = ::read(fd_, out, size);
      if (got >= 0) return static_cast<std::size_t>(got);
      if (errno != EINTR) return Status::IOError("cannot read ", path_, ": ", std::strerror(errno));
    }
  }

  const int fd_;
  const std::string path_;
};

// An object, in large ranges, each asked for as the one before is used up. The first is small: many
// look at no more than the start.
class ObjectSource final : public StoredSource {
 public:
  ObjectSource(std::shared_ptr<arrow::io::RandomAccessFile> file, std::int64_t at, bool with_hash)
      : StoredSource(with_hash), file_(std::move(file)), position_(at) {}

 private:
  Result<std::size_t> ReadSome(char* out, std::size_t size) override {
    if (next_ == range_.size()) {
      range_.resize(range_bytes_);
      MS_ASSIGN_OR_RETURN(
          const std::int64_t got,
          file_->ReadAt(position_, static_cast<std::int64_t>(range_.size()), range_.data())
      );
      range_.resize(static_cast<std::size_t>(got));
      position_ += got;
      next_ = 0;
      range_bytes_ = kRangeBytesMax;
    }
    const std::size_t taken = std::min(size, range_.size() - next_);
    std::memcpy(out, range_.data() + next_, taken);
    next_ += taken;
    return taken;
  }

  static constexpr std::size_t kRangeBytesMax = std::size_t{8} << 20;
  const std::shared_ptr<arrow::io::RandomAccessFile> file_;
  std::int64_t position_;
  std::size_t range_bytes_ = kChunkBytes;
  std::vector<char> range_;
  std::size_t next_ = 0;
};

// What gzip and zstd share: compressed bytes in, the cap on the ratio.
class CompressedSource : public ByteSource {
 public:
  CompressedSource(std::unique_ptr<ByteSource> file, std::string path)
      : file_(std::move(file)), path_(std::move(path)), chunk_(kChunkBytes) {}
  std::uint64_t bytes_read() const override { return file_->bytes_read(); }
  std::uint64_t hash() const override { return file_->hash(); }

  Result<std::size_t> Read(char* out, std::size_t size) final {
    std::size_t filled = 0;
    while (filled < size) {
      if (next_ == end_ && !at_end_) {
        MS_ASSIGN_OR_RETURN(end_, file_->Read(chunk_.data(), chunk_.size()));
        next_ = 0;
        at_end_ = end_ == 0;
      }
      if (at_end_ && !in_frame_) break;
      const std::size_t before = next_;
      MS_ASSIGN_OR_RETURN(const std::size_t made, Decode(out + filled, size - filled));
      if (at_end_ && made == 0 && in_frame_) {
        return Broken("ends in the middle of its compressed data");
      }
      consumed_ += next_ - before;
      produced_ += made;
      filled += made;
      if (produced_ > kRatioFreeBytes && produced_ / kRatioMax > consumed_) {
        return Broken("expands more than 1000:1, which looks like a decompression bomb");
      }
    }
    return filled;
  }

 protected:
  // Decodes from chunk_[next_, end_), moves next_ on, keeps in_frame_ and returns how many bytes it
  // made.
  virtual Result<std::size_t> Decode(char* out, std::size_t size) = 0;
  Status Broken(const char* why) const { return Status::Invalid(path_, " ", why); }

  std::unique_ptr<ByteSource> file_;
  const std::string path_;
  std::vector<char> chunk_;
  std::size_t next_ = 0;
  std::size_t end_ = 0;
  bool in_frame_ = false;  // a member or frame was begun and has not ended
  bool at_end_ = false;

 private:
  std::uint64_t consumed_ = 0;
  std::uint64_t produced_ = 0;
};

class GzipSource final : public CompressedSource {
 public:
  using CompressedSource::CompressedSource;
  ~GzipSource() override { inflateEnd(&stream_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  Status Init() {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) return Status::OutOfMemory("no memory for gzip");
    return Status::OK();
  }

 private:
  Result<std::size_t> Decode(char* out, std::size_t size) override {
    if (!in_frame_) {
      // Zeros after the last member are padding (tar and tape tools leave them).
      while (members_ > 0 && next_ < end_ && chunk_[next_] == '\0') ++next_;
      if (next_ == end_) return 0;
      if (inflateReset(&stream_) != Z_OK) return Broken("cannot be read as gzip");
      in_frame_ = true;
    }
    const std::size_t room = std::min<std::size_t>(size, std::size_t{1} << 30);
    stream_.next_in = reinterpret_cast<Bytef*>(chunk_.data() + next_);
    stream_.avail_in = static_cast<uInt>(end_ - next_);
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    stream_.avail_out = static_cast<uInt>(room);
    const int code = inflate(&stream_, Z_NO_FLUSH);
    next_ = end_ - stream_.avail_in;
    if (code == Z_STREAM_END) {
      in_frame_ = false;
      ++members_;
    } else if (code != Z_OK && code != Z_BUF_ERROR) {
      return Broken(
          members_ > 0 ? "has data that is no gzip after its end" : "is not valid gzip data"
      );
    }
    return room - stream_.avail_out;
  }

  z_stream stream_{};
  std::uint64_t members_ = 0;
};

class ZstdSource final : public CompressedSource {
 public:
  using CompressedSource::CompressedSource;
  ~ZstdSource() override { ZSTD_freeDStream(stream_); }
  ZstdSource(const ZstdSource&) = delete;
  ZstdSource& operator=(const ZstdSource&) = delete;

  Status Init() {
    if (stream_ == nullptr) return Status::OutOfMemory("no memory for zstd");
    ZSTD_DCtx_setParameter(stream_, ZSTD_d_windowLogMax, kZstdWindowLogMax);
    return Status::OK();
  }

 private:
  Result<std::size_t> Decode(char* out, std::size_t size) override {
    ZSTD_inBuffer in{chunk_.data(), end_, next_};
    ZSTD_outBuffer made{out, size, 0};
    const std::size_t code = ZSTD_decompressStream(stream_, &made, &in);
    if (ZSTD_isError(code) != 0) return Broken(ZSTD_getErrorName(code));
    next_ = in.pos;
    in_frame_ = code != 0;
    return made.pos;
  }

  ZSTD_DStream* stream_ = ZSTD_createDStream();
};

Result<std::unique_ptr<ByteSource>> OpenStored(
    const InputFile& file, std::uint64_t offset, bool with_hash
) {
  if (IsObjectPath(file.path)) {
    MS_ASSIGN_OR_RETURN(auto object, OpenInput(file));
    return std::make_unique<ObjectSource>(
        std::move(object), static_cast<std::int64_t>(offset), with_hash
    );
  }
  const std::string& path = file.path;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return Status::IOError("cannot open ", path, ": ", std::strerror(errno));
  auto source = std::make_unique<LocalSource>(fd, path, with_hash);
  if (offset > 0 && ::lseek(fd, static_cast<off_t>(offset), SEEK_SET) < 0) {
    return Status::IOError("cannot seek in ", path, ": ", std::strerror(errno));
  }
  return source;
}

}  // namespace

Result<std::unique_ptr<ByteSource>> OpenBytes(
    const InputFile& file, Compression compression, std::uint64_t offset, bool with_hash
) {
  MS_CHECK(compression == Compression::kNone || offset == 0);
  MS_ASSIGN_OR_RETURN(auto stored, OpenStored(file, offset, with_hash));
  if (compression == Compression::kGzip) {
    auto source = std::make_unique<GzipSource>(std::move(stored), file.path);
    MS_RETURN_NOT_OK(source->Init());
    return source;
  }
  if (compression == Compression::kZstd) {
    auto source = std::make_unique<ZstdSource>(std::move(stored), file.path);
    MS_RETURN_NOT_OK(source->Init());
    return source;
  }
  return stored;
}

}  // namespace millstream
