// SPDX-License-Identifier: Apache-2.0
#include "data/listing.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "base/utf8.h"
#include "data/byte_source.h"
#include "data/object_listing.h"
#include "storage/object_file.h"
#include "storage/path.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

struct Suffix {
  std::string_view suffix;
  FileFormat format;
};
constexpr std::array<Suffix, 15> kSuffixes{
    {{".jsonl", FileFormat::kJsonl},
     {".ndjson", FileFormat::kJsonl},
     {".json", FileFormat::kJson},
     {".csv", FileFormat::kCsv},
     {".tsv", FileFormat::kTsv},
     {".tab", FileFormat::kTsv},
     {".txt", FileFormat::kText},
     {".text", FileFormat::kText},
     {".log", FileFormat::kText},
     {".parquet", FileFormat::kParquet},
     {".pq", FileFormat::kParquet},
     {".arrow", FileFormat::kArrowFile},
     {".feather", FileFormat::kArrowFile},
     {".ipc", FileFormat::kArrowFile},
     {".arrows", FileFormat::kArrowStream}}
};

constexpr int kFoldersMax = 32;  // below the 40 links at which the system gives up

bool IsTextFormat(FileFormat format) {
  return format != FileFormat::kParquet && format != FileFormat::kArrowFile &&
         format != FileFormat::kArrowStream;
}

Status Failed(const std::string& path, const std::error_code& error) {
  return Status::IOError("cannot list ", path, ": ", error.message());
}

// The names in a folder, sorted.
Result<std::vector<fs::path>> Entries(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> entries;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    entries.push_back(entry->path());
  }
  if (error) return Failed(folder.string(), error);
  std::sort(entries.begin(), entries.end());
  return entries;
}

Status CheckDepth(const fs::path& folder, int depth) {
  if (depth < kFoldersMax) return Status::OK();
  return Status::Invalid(
      folder.string(),
      " lies more than ",
      kFoldersMax,
      " folders deep: does a link lead back to a folder above it?"
  );
}

Status AddFolder(const fs::path& folder, int depth, std::vector<fs::path>& files) {
  MS_RETURN_NOT_OK(CheckDepth(folder, depth));
  MS_ASSIGN_OR_RETURN(const auto entries, Entries(folder));
  for (const fs::path& entry : entries) {
    if (IsHidden(entry.filename().string())) continue;
    std::error_code error;
    if (fs::is_regular_file(entry, error)) {
      files.push_back(entry);
    } else if (fs::is_directory(entry, error)) {
      MS_RETURN_NOT_OK(AddFolder(entry, depth + 1, files));
    }
  }
  return Status::OK();
}

// Adds the files that match a pattern, component by component.
class Glob {
 public:
  Glob(const fs::path& pattern, std::vector<fs::path>& files)
      : components_(pattern.begin(), pattern.end()), files_(files) {}

  // Matches components [next, end) below `folder`.
  Status Match(const fs::path& folder, std::size_t next, int depth) {
    MS_RETURN_NOT_OK(CheckDepth(folder, depth));
    const std::string component = components_[next].string();
    if (component == "**") return MatchAnyFolders(folder, next, depth);
    if (component.find_first_of("*?[") == component.npos) {
      return Take(folder / component, next, depth);
    }
    std::error_code error;
    if (!fs::is_directory(folder, error)) return Status::OK();
    MS_ASSIGN_OR_RETURN(const auto entries, Entries(folder));
    for (const fs::path& entry : entries) {
      const bool fits = ::fnmatch(component.c_str(), entry.filename().c_str(), FNM_PERIOD) == 0;
      if (fits) MS_RETURN_NOT_OK(Take(entry, next, depth));
    }
    return Status::OK();
  }

 private:
  Status MatchAnyFolders(const fs::path& folder, std::size_t next, int depth) {
    const bool is_last = next + 1 == components_.size();
    if (is_last) return AddFolder(folder, depth, files_);
    MS_RETURN_NOT_OK(Match(folder, next + 1, depth));
    MS_ASSIGN_OR_RETURN(const auto entries, Entries(folder));
    for (const fs::path& entry : entries) {
      std::error_code error;
      if (IsHidden(entry.filename().string()) || !fs::is_directory(entry, error)) continue;
      MS_RETURN_NOT_OK(MatchAnyFolders(entry, next, depth + 1));
    }
    return Status::OK();
  }

  Status Take(const fs::path& path, std::size_t next, int depth) {
    std::error_code error;
    const bool is_last = next + 1 == components_.size();
    if (!is_last && fs::is_directory(path, error)) return Match(path, next + 1, depth + 1);
    if (is_last && fs::is_regular_file(path, error)) files_.push_back(path);
    return Status::OK();
  }

  const std::vector<fs::path> components_;
  std::vector<fs::path>& files_;
};

Status AddPath(const std::string& given, const fs::path& base, std::vector<fs::path>& files) {
  if (given.find("://") != given.npos) {
    return Status::NotImplemented(
        "input ", given, ": only files of the local disk and s3:// paths can be read"
    );
  }
  const fs::path path = (base / given).lexically_normal();
  const std::size_t before = files.size();
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) {
    MS_RETURN_NOT_OK(AddFolder(path, 0, files));
    if (files.size() == before) {
      return Status::IOError(
          "input folder ", given, " holds no files; names that begin with . or _ do not count"
      );
    }
  } else if (fs::exists(status)) {
    if (!fs::is_regular_file(status)) {
      return Status::IOError("input ", given, " is no regular file");
    }
    files.push_back(path);
  } else if (given.find_first_of("*?[") != given.npos) {
    MS_RETURN_NOT_OK(Glob(path.relative_path(), files).Match(path.root_path(), 0, 0));
    if (files.size() == before) {
      return Status::IOError("input pattern ", given, " matches no file below ", base.string());
    }
  } else {
    return Status::IOError(
        "input file ", given, " does not exist (looked for ", path.string(), ")"
    );
  }
  return Status::OK();
}

Status AddObjects(const std::string& given, std::map<std::string, InputFile>& found) {
  MS_ASSIGN_OR_RETURN(const std::vector<StoredObject> objects, FindObjects(given));
  for (const StoredObject& object : objects) {
    InputFile& file = found[object.key];
    file.path = file.name = object.key;
    file.size_bytes = object.size_bytes;
    file.etag = object.etag;
  }
  return Status::OK();
}

// The name relative to the base folder, where it is below it.
std::string NameOf(const fs::path& path, const fs::path& base) {
  const fs::path relative = path.lexically_relative(base);
  if (relative.empty() || *relative.begin() == "..") return path.string();
  return relative.string();
}

std::string_view WithoutCompression(std::string_view name, Compression& compression) {
  for (const auto& [suffix, kind] :
       {std::pair<std::string_view, Compression>{".gz", Compression::kGzip},
        {".zst", Compression::kZstd}}) {
    if (!name.ends_with(suffix)) continue;
    compression = kind;
    name.remove_suffix(suffix.size());
  }
  return name;
}

std::optional<FileFormat> FormatOfName(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : static_cast<char>(c);
  });
  for (const Suffix& suffix : kSuffixes) {
    if (lower.ends_with(suffix.suffix)) return suffix.format;
  }
  return std::nullopt;
}

struct Magic {
  std::string_view bytes;
  const char* name;
  std::optional<FileFormat> format;
};
const std::array<Magic, 9> kMagics{
    {{"PAR1", "a Parquet file", FileFormat::kParquet},
     {"PARE", "an encrypted Parquet file", std::nullopt},
     {"ARROW1", "an Arrow file", FileFormat::kArrowFile},
     {"\xFF\xFF\xFF\xFF", "an Arrow stream", FileFormat::kArrowStream},
     {"\x1F\x8B", "gzip data", std::nullopt},
     {"\x28\xB5\x2F\xFD", "zstd data", std::nullopt},
     {"PK\x03\x04", "a ZIP archive", std::nullopt},
     {"\xFF\xFE", "UTF-16 text", std::nullopt},
     {"\xFE\xFF", "UTF-16 text", std::nullopt}}
};

const Magic* FindMagic(std::string_view start) {
  const auto found = std::find_if(kMagics.begin(), kMagics.end(), [&](const Magic& magic) {
    return start.starts_with(magic.bytes);
  });
  return found == kMagics.end() ? nullptr : &*found;
}

const char* AdviceOn(std::string_view seems, bool format_is_given) {
  if (seems == "an empty file") return "";
  if (seems == "UTF-16 text") return ": convert it to UTF-8";
  if (seems == "gzip data") return ": its name must end in .gz";
  if (seems == "zstd data") return ": its name must end in .zst";
  if (seems == "a ZIP archive") return ": unpack it first";
  return format_is_given ? ": change `format:` below `input:`"
                         : ": rename it, or set `format:` below `input:`";
}

// Reads up to `size` bytes at the start of a file.
Result<std::string> ReadStart(const InputFile& file, std::size_t size) {
  MS_ASSIGN_OR_RETURN(const auto source, OpenBytes(file, Compression::kNone, 0, false));
  std::string start(size, '\0');
  MS_ASSIGN_OR_RETURN(const std::size_t got, source->Read(start.data(), size));
  start.resize(got);
  return start;
}

// Whether the file begins as its name says. Settles whether an `.arrow` file is a file or a stream.
Status CheckStart(InputFile& file, bool format_is_given) {
  MS_ASSIGN_OR_RETURN(const std::string start, ReadStart(file, 16));
  if (start.empty() && IsTextFormat(file.format) && file.compression == Compression::kNone) {
    return Status::OK();
  }
  const Magic* magic = FindMagic(start);
  const char* seems = magic != nullptr ? magic->name
                      : start.empty()  ? "an empty file"
                                       : "something else";
  const auto wrong = [&](std::string_view expected) {
    return Status::Invalid(
        file.name,
        format_is_given ? " is given as " : " has the suffix of ",
        expected,
        " and seems to be ",
        seems,
        AdviceOn(seems, format_is_given)
    );
  };
  if (file.compression != Compression::kNone) {
    const bool gzip = file.compression == Compression::kGzip;
    const bool is_zstd_skippable =
        start.size() >= 4 && (start[0] & '\xF0') == '\x50' && start.substr(1, 3) == "\x2A\x4D\x18";
    if (magic != nullptr && std::string_view(magic->name) == (gzip ? "gzip data" : "zstd data")) {
      return Status::OK();
    }
    return !gzip && is_zstd_skippable ? Status::OK() : wrong(gzip ? "gzip data" : "zstd data");
  }
  if (IsTextFormat(file.format)) {
    return magic == nullptr ? Status::OK() : wrong(std::string(FormatName(file.format)) + " text");
  }
  if (file.format == FileFormat::kParquet) {
    return magic != nullptr && magic->format == file.format ? Status::OK()
                                                            : wrong("a Parquet file");
  }
  if (magic != nullptr && magic->format && *magic->format != FileFormat::kParquet) {
    file.format = *magic->format;
    return Status::OK();
  }
  return wrong("Arrow data");
}

// Fills in what the name and the start of a file tell. Its size may be known already, from a
// listing.
Result<InputFile> Describe(InputFile file, std::optional<FileFormat> format) {
  if (!IsValidUtf8(file.name)) {
    return Status::Invalid("the name of ", file.name, " is not valid UTF-8");
  }
  const std::string_view stem = WithoutCompression(file.name, file.compression);
  const std::optional<FileFormat> found = format ? format : FormatOfName(stem);
  if (!found) {
    return Status::Invalid(
        "the suffix of ",
        file.name,
        " names no format that can be read (jsonl, json, csv, tsv, txt, parquet, arrow); "
        "set `format:` below `input:`, or name the files by a pattern such as data/*.parquet"
    );
  }
  file.format = *found;
  if (file.compression != Compression::kNone && !IsTextFormat(file.format)) {
    return Status::Invalid(
        file.name, ": only text formats can be read from .gz and .zst files; unpack it first"
    );
  }
  if (file.etag.empty()) MS_RETURN_NOT_OK(StatFile(file));
  MS_RETURN_NOT_OK(CheckStart(file, format.has_value()));
  return file;
}

bool IsArrow(FileFormat format) {
  return format == FileFormat::kArrowFile || format == FileFormat::kArrowStream;
}

}  // namespace

bool IsHidden(std::string_view name) {
  return name.empty() || name[0] == '.' || name[0] == '_' || name.ends_with(".millstream");
}

Status StatFile(InputFile& file) {
  if (IsObjectPath(file.path)) {
    MS_ASSIGN_OR_RETURN(StoredObject object, StatObject(file.path));
    file.size_bytes = object.size_bytes;
    file.etag = std::move(object.etag);
    return Status::OK();
  }
  struct stat status{};
  if (::stat(file.path.c_str(), &status) != 0) {
    return Status::IOError("cannot read ", file.name, ": ", std::strerror(errno));
  }
  file.size_bytes = static_cast<std::uint64_t>(status.st_size);
  file.mtime_ns = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  return Status::OK();
}

Result<std::uint64_t> HashFile(const InputFile& file) {
  std::uint64_t offset = 0;
  if (file.format == FileFormat::kParquet || file.format == FileFormat::kArrowFile) {
    // Both end in the footer's length and a magic word.
    const std::uint64_t tail_bytes = file.format == FileFormat::kParquet ? 8 : 10;
    if (file.size_bytes < tail_bytes) return Status::Invalid(file.name, " is truncated");
    MS_ASSIGN_OR_RETURN(
        const auto tail, OpenBytes(file, Compression::kNone, file.size_bytes - tail_bytes, false)
    );
    std::uint32_t footer_bytes = 0;
    MS_ASSIGN_OR_RETURN(
        const std::size_t got,
        tail->Read(reinterpret_cast<char*>(&footer_bytes), sizeof(footer_bytes))
    );
    if (got != sizeof(footer_bytes)) return Status::Invalid(file.name, " is truncated");
    offset = file.size_bytes - std::min<std::uint64_t>(file.size_bytes, tail_bytes + footer_bytes);
  }
  MS_ASSIGN_OR_RETURN(const auto source, OpenBytes(file, Compression::kNone, offset, true));
  std::vector<char> buffer(std::size_t{1} << 20);
  for (std::size_t got = buffer.size(); got == buffer.size();) {
    MS_ASSIGN_OR_RETURN(got, source->Read(buffer.data(), buffer.size()));
  }
  return source->hash();
}

Result<bool> HasGrown(const InputFile& pinned, const InputFile& now) {
  const bool is_lines = pinned.format == FileFormat::kJsonl || pinned.format == FileFormat::kCsv ||
                        pinned.format == FileFormat::kTsv || pinned.format == FileFormat::kText;
  if (!is_lines || pinned.compression != Compression::kNone ||
      now.size_bytes <= pinned.size_bytes || IsObjectPath(now.path)) {
    return false;  // an object that grew is another one
  }
  MS_ASSIGN_OR_RETURN(const auto source, OpenBytes(now, Compression::kNone, 0, true));
  std::vector<char> buffer(std::size_t{1} << 20);
  char last = '\n';
  for (std::uint64_t left = pinned.size_bytes; left > 0;) {
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(left, buffer.size()));
    MS_ASSIGN_OR_RETURN(const std::size_t got, source->Read(buffer.data(), want));
    if (got == 0) return false;
    last = buffer[got - 1];
    left -= got;
  }
  if (source->hash() != pinned.hash) return false;
  char next = 0;
  MS_ASSIGN_OR_RETURN(const std::size_t got, source->Read(&next, 1));
  return got == 1 && (last == '\n' || next == '\n');
}

Status CheckFile(const InputFile& pinned) {
  InputFile now = pinned;
  MS_RETURN_NOT_OK(StatFile(now));
  const auto changed = [&] {
    return Conflict(
        "input file " + pinned.name +
        " was changed since the job was made: its output would mix two inputs"
    );
  };
  if (now.size_bytes != pinned.size_bytes || now.etag != pinned.etag) return changed();
  if (now.mtime_ns == pinned.mtime_ns) return Status::OK();
  MS_ASSIGN_OR_RETURN(const std::uint64_t hash, HashFile(now));
  return hash == pinned.hash ? Status::OK() : changed();
}

Result<std::vector<InputFile>> ListInput(const InputOptions& options) {
  if (options.paths.empty()) return Status::Invalid("the input names no files");
  const fs::path base =
      fs::absolute(options.base_folder.empty() ? "." : options.base_folder).lexically_normal();
  std::map<std::string, InputFile> found;  // by path
  for (const std::string& given : options.paths) {
    if (IsObjectPath(given)) {
      MS_RETURN_NOT_OK(AddObjects(given, found));
      continue;
    }
    std::vector<fs::path> paths;
    MS_RETURN_NOT_OK(AddPath(given, base, paths));
    for (const fs::path& path : paths) {
      InputFile& file = found[path.string()];
      file.path = path.string();
      file.name = NameOf(path, base);
    }
  }
  std::vector<InputFile> files;
  for (auto& [path, listed] : found) {
    MS_ASSIGN_OR_RETURN(InputFile file, Describe(std::move(listed), options.format));
    files.push_back(std::move(file));
  }
  std::sort(files.begin(), files.end(), [](const InputFile& a, const InputFile& b) {
    return a.name < b.name;
  });
  for (const InputFile& file : files) {
    const InputFile& first = files.front();
    if (file.format == first.format || (IsArrow(file.format) && IsArrow(first.format))) continue;
    return Status::Invalid(
        "one input has one format: ",
        first.name,
        " is ",
        FormatName(first.format),
        " and ",
        file.name,
        " is ",
        FormatName(file.format),
        "; name the files of one format by a pattern such as data/*.jsonl"
    );
  }
  return files;
}

}  // namespace millstream
