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
#include <optional>
#include <system_error>
#include <utility>

#include "data/byte_source.h"

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

bool IsTextFormat(FileFormat format) {
  return format != FileFormat::kParquet && format != FileFormat::kArrowFile &&
         format != FileFormat::kArrowStream;
}

// Names that a folder's listing leaves out.
bool IsHidden(std::string_view name) {
  return name.empty() || name[0] == '.' || name[0] == '_' || name.ends_with(".millstream");
}

Status Failed(const std::string& path, const std::error_code& error) {
  return Status::IOError("cannot list ", path, ": ", error.message());
}

// The names in a folder, sorted.
Result<std::vector<fs::path>> Entries(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> entries;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error))
    entries.push_back(entry->path());
  if (error) return Failed(folder.string(), error);
  std::sort(entries.begin(), entries.end());
  return entries;
}

// Does not follow links to folders, which may form a circle.
bool IsRealFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(path, error));
}

Status AddFolder(const fs::path& folder, std::vector<fs::path>& files) {
  MS_ASSIGN_OR_RETURN(const auto entries, Entries(folder));
  for (const fs::path& entry : entries) {
    if (IsHidden(entry.filename().string())) continue;
    std::error_code error;
    if (fs::is_regular_file(entry, error)) {
      files.push_back(entry);
    } else if (IsRealFolder(entry)) {
      MS_RETURN_NOT_OK(AddFolder(entry, files));
    }
  }
  return Status::OK();
}

// Adds the files below `folder` that match the components [first, last) of a pattern.
Status AddMatches(
    const fs::path& folder,
    fs::path::const_iterator first,
    fs::path::const_iterator last,
    std::vector<fs::path>& files
) {
  const std::string component = first->string();
  const auto rest = std::next(first);
  std::error_code error;
  if (component == "**") {
    if (rest != last) MS_RETURN_NOT_OK(AddMatches(folder, rest, last, files));
    MS_ASSIGN_OR_RETURN(const auto entries, Entries(folder));
    for (const fs::path& entry : entries) {
      if (IsHidden(entry.filename().string())) continue;
      if (IsRealFolder(entry)) {
        MS_RETURN_NOT_OK(AddMatches(entry, first, last, files));
      } else if (rest == last && fs::is_regular_file(entry, error)) {
        files.push_back(entry);
      }
    }
    return Status::OK();
  }
  if (component.find_first_of("*?[") == component.npos) {
    const fs::path next = folder / component;
    if (rest != last && fs::is_directory(next, error)) return AddMatches(next, rest, last, files);
    if (rest == last && fs::is_regular_file(next, error)) files.push_back(next);
    return Status::OK();
  }
  if (!fs::is_directory(folder, error)) return Status::OK();
  MS_ASSIGN_OR_RETURN(const auto entries, Entries(folder));
  for (const fs::path& entry : entries) {
    if (::fnmatch(component.c_str(), entry.filename().c_str(), FNM_PERIOD) != 0) continue;
    if (rest != last && fs::is_directory(entry, error))
      MS_RETURN_NOT_OK(AddMatches(entry, rest, last, files));
    if (rest == last && fs::is_regular_file(entry, error)) files.push_back(entry);
  }
  return Status::OK();
}

Status AddPath(const std::string& given, const fs::path& base, std::vector<fs::path>& files) {
  if (given.find("://") != given.npos) {
    return Status::NotImplemented("input ", given, ": only files of the local disk can be read");
  }
  const fs::path path = (base / given).lexically_normal();
  const std::size_t before = files.size();
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) {
    MS_RETURN_NOT_OK(AddFolder(path, files));
    if (files.size() == before) return Status::IOError("input folder ", given, " holds no files");
  } else if (fs::exists(status)) {
    if (!fs::is_regular_file(status))
      return Status::IOError("input ", given, " is no regular file");
    files.push_back(path);
  } else if (given.find_first_of("*?[") != given.npos) {
    const fs::path absolute = fs::absolute(path);
    const fs::path relative = absolute.relative_path();
    MS_RETURN_NOT_OK(AddMatches(absolute.root_path(), relative.begin(), relative.end(), files));
    if (files.size() == before)
      return Status::IOError("input pattern ", given, " matches no file below ", base.string());
  } else {
    return Status::IOError(
        "input file ", given, " does not exist (looked for ", path.string(), ")"
    );
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

// Whether the file begins as its name says. Settles whether an `.arrow` file is a file or a stream.
Status CheckStart(InputFile& file, bool format_is_given) {
  MS_ASSIGN_OR_RETURN(const std::string start, ReadStart(file.path, 16));
  if (start.empty() && IsTextFormat(file.format) && file.compression == Compression::kNone)
    return Status::OK();
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
        seems
    );
  };
  if (file.compression != Compression::kNone) {
    const bool gzip = file.compression == Compression::kGzip;
    const bool is_zstd_skippable =
        start.size() >= 4 && (start[0] & '\xF0') == '\x50' && start.substr(1, 3) == "\x2A\x4D\x18";
    if (magic != nullptr && std::string_view(magic->name) == (gzip ? "gzip data" : "zstd data"))
      return Status::OK();
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

Result<InputFile> Describe(
    const fs::path& path, const fs::path& base, std::optional<FileFormat> format
) {
  InputFile file;
  file.path = path.string();
  file.name = NameOf(path, base);
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
  MS_RETURN_NOT_OK(StatFile(file));
  MS_RETURN_NOT_OK(CheckStart(file, format.has_value()));
  return file;
}

bool IsArrow(FileFormat format) {
  return format == FileFormat::kArrowFile || format == FileFormat::kArrowStream;
}

}  // namespace

Status StatFile(InputFile& file) {
  struct stat status{};
  if (::stat(file.path.c_str(), &status) != 0) {
    return Status::IOError("cannot read ", file.name, ": ", std::strerror(errno));
  }
  file.size_bytes = static_cast<std::uint64_t>(status.st_size);
  file.mtime_ns = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  return Status::OK();
}

Result<std::string> ReadStart(const std::string& path, std::size_t size) {
  MS_ASSIGN_OR_RETURN(const auto source, OpenBytes(path, Compression::kNone, 0, false));
  std::string start(size, '\0');
  MS_ASSIGN_OR_RETURN(const std::size_t got, source->Read(start.data(), size));
  start.resize(got);
  return start;
}

Result<std::uint64_t> HashFile(const InputFile& file) {
  std::uint64_t offset = 0;
  if (file.format == FileFormat::kParquet || file.format == FileFormat::kArrowFile) {
    // Both end in the footer's length and a magic word.
    const std::uint64_t tail_bytes = file.format == FileFormat::kParquet ? 8 : 10;
    if (file.size_bytes < tail_bytes) return Status::Invalid(file.name, " is truncated");
    MS_ASSIGN_OR_RETURN(
        const auto tail,
        OpenBytes(file.path, Compression::kNone, file.size_bytes - tail_bytes, false)
    );
    std::uint32_t footer_bytes = 0;
    MS_ASSIGN_OR_RETURN(
        const std::size_t got,
        tail->Read(reinterpret_cast<char*>(&footer_bytes), sizeof(footer_bytes))
    );
    if (got != sizeof(footer_bytes)) return Status::Invalid(file.name, " is truncated");
    offset = file.size_bytes - std::min<std::uint64_t>(file.size_bytes, tail_bytes + footer_bytes);
  }
  MS_ASSIGN_OR_RETURN(const auto source, OpenBytes(file.path, Compression::kNone, offset, true));
  std::vector<char> buffer(std::size_t{1} << 20);
  for (std::size_t got = buffer.size(); got == buffer.size();) {
    MS_ASSIGN_OR_RETURN(got, source->Read(buffer.data(), buffer.size()));
  }
  return source->hash();
}

Status CheckFile(const InputFile& pinned) {
  InputFile now = pinned;
  MS_RETURN_NOT_OK(StatFile(now));
  const auto changed = [&] {
    return Status::Invalid(
        "input file ",
        pinned.name,
        " was changed since the job was made: its output would mix two inputs"
    );
  };
  if (now.size_bytes != pinned.size_bytes) return changed();
  if (now.mtime_ns == pinned.mtime_ns) return Status::OK();
  MS_ASSIGN_OR_RETURN(const std::uint64_t hash, HashFile(now));
  return hash == pinned.hash ? Status::OK() : changed();
}

Result<std::vector<InputFile>> ListInput(const InputOptions& options) {
  if (options.paths.empty()) return Status::Invalid("the input names no files");
  const fs::path base =
      fs::absolute(options.base_folder.empty() ? "." : options.base_folder).lexically_normal();
  std::vector<fs::path> paths;
  for (const std::string& given : options.paths) MS_RETURN_NOT_OK(AddPath(given, base, paths));

  std::vector<InputFile> files;
  std::sort(paths.begin(), paths.end());
  paths.erase(std::unique(paths.begin(), paths.end()), paths.end());
  for (const fs::path& path : paths) {
    MS_ASSIGN_OR_RETURN(InputFile file, Describe(path, base, options.format));
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
        FormatName(file.format)
    );
  }
  return files;
}

}  // namespace millstream
