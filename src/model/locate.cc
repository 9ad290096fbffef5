// SPDX-License-Identifier: Apache-2.0
#include "model/locate.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>
#include <utility>

#include "base/nearest.h"
#include "model/checkpoint.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

std::string Lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

bool IsFolder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

/// What a folder holds, sorted; nothing if it cannot be listed.
std::vector<fs::path> List(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  fs::directory_iterator it(folder, fs::directory_options::skip_permission_denied, error);
  for (; !error && it != fs::directory_iterator(); it.increment(error)) paths.push_back(it->path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<fs::path> GgufFiles(const fs::path& folder) {
  std::vector<fs::path> files = List(folder);
  std::erase_if(files, [](const fs::path& file) {
    return Lower(file.extension().string()) != ".gguf";
  });
  return files;
}

/// Whether this part of a file name says how the weights are quantised: q4_1, iq3_xs, f16, ...
bool IsQuantisation(const std::string& part) {
  constexpr std::array<std::string_view, 6> kWords = {
      "f16", "f32", "bf16", "fp16", "fp32", "mxfp4"
  };
  if (std::find(kWords.begin(), kWords.end(), part) != kWords.end()) return true;
  const std::size_t q = part.find('q');
  return q <= 1 && q + 1 < part.size() && part[q + 1] >= '1' && part[q + 1] <= '8' &&
         (q == 0 || part[0] == 'i' || part[0] == 't');
}

/// "SmolLM2-135M-Instruct.Q4_1.gguf" is called smollm2-135m-instruct.
std::string PackageModelName(const fs::path& file) {
  std::string name = Lower(file.stem().string());
  const std::size_t mark = name.find_last_of(".-");
  if (mark != std::string::npos && mark > 0 && IsQuantisation(name.substr(mark + 1))) {
    name.resize(mark);
  }
  return name;
}

struct NamedFile {
  std::string name;
  fs::path path;
};

/// The GGUF files in the packages of one site-packages folder.
std::vector<NamedFile> PackageModels(const fs::path& site_packages) {
  std::vector<NamedFile> models;
  for (const fs::path& package : List(site_packages)) {
    if (!IsFolder(package)) continue;
    for (const fs::path& file : GgufFiles(package)) {
      models.push_back({PackageModelName(file), file});
    }
  }
  return models;
}

/// A folder with a configuration stands for itself, one with GGUF alone for its file.
Result<std::string> ResolveFolder(const fs::path& folder) {
  if (Exists(folder / "config.json")) return folder.string();
  const std::vector<fs::path> files = GgufFiles(folder);
  if (files.size() == 1) return files[0].string();
  if (files.empty()) return folder.string();
  std::string names;
  for (std::size_t i = 0; i < std::min<std::size_t>(files.size(), 10); ++i) {
    names += (i == 0 ? "" : ", ") + files[i].filename().string();
  }
  return Status::Invalid(
      folder.string(), " holds ", files.size(), " GGUF files: name one by its path (", names, ")"
  );
}

/// "org/repo" or "org/repo@revision".
struct HubId {
  std::string organisation, repository, revision;

  static std::optional<HubId> Parse(const std::string& name) {
    const std::size_t slash = name.find('/');
    const std::size_t at = name.find('@');
    if (slash == std::string::npos || (at != std::string::npos && at < slash)) return std::nullopt;
    HubId id;
    id.organisation = name.substr(0, slash);
    id.repository = name.substr(slash + 1, at == std::string::npos ? at : at - slash - 1);
    id.revision = at == std::string::npos ? "main" : name.substr(at + 1);
    for (const std::string* part : {&id.organisation, &id.repository, &id.revision}) {
      if (!IsPlain(*part)) return std::nullopt;
    }
    return id;
  }

  /// Letters, digits and ._- only, and no name that means another folder.
  static bool IsPlain(const std::string& part) {
    const auto plain = [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
    };
    return !part.empty() && part[0] != '.' && std::all_of(part.begin(), part.end(), plain);
  }

  fs::path FolderIn(const std::string& cache) const {
    return fs::path(cache) / ("models--" + organisation + "--" + repository);
  }
};

/// The snapshot's folder, if the cache has it. `revision` is a branch, a tag or a commit.
std::optional<fs::path> FindSnapshot(const HubId& id, const std::string& cache) {
  if (cache.empty()) return std::nullopt;
  const fs::path folder = id.FolderIn(cache);
  std::string commit = id.revision;
  std::ifstream ref(folder / "refs" / id.revision);
  std::string stated;
  if (ref >> stated && HubId::IsPlain(stated)) commit = stated;
  fs::path snapshot = folder / "snapshots" / commit;
  if (IsFolder(snapshot)) return snapshot;
  return std::nullopt;
}

/// The ids of the models in a Hugging Face cache.
std::vector<std::string> HubModels(const std::string& cache) {
  constexpr std::string_view kPrefix = "models--";
  std::vector<std::string> ids;
  if (cache.empty()) return ids;
  for (const fs::path& folder : List(cache)) {
    std::string name = folder.filename().string();
    if (!name.starts_with(kPrefix) || !IsFolder(folder)) continue;
    name.erase(0, kPrefix.size());
    const std::size_t mark = name.find("--");
    if (mark == std::string::npos) continue;
    ids.push_back(name.substr(0, mark) + "/" + name.substr(mark + 2));
  }
  return ids;
}

/// The name most like `wanted`: one that holds it or is held by it, else the one with the fewest
/// edits; empty if none is near.
std::string Nearest(const std::string& wanted, const std::vector<std::string>& names) {
  const std::string low = Lower(wanted.substr(0, 200));
  std::vector<std::string> lows;
  for (const std::string& name : names) {
    lows.push_back(Lower(name));
    const bool holds =
        lows.back().find(low) != std::string::npos || low.find(lows.back()) != std::string::npos;
    if (low.size() >= 4 && holds) return name;
  }
  const std::vector<std::string_view> views(lows.begin(), lows.end());
  const std::string_view nearest = NearestName(low, views);
  const auto found = std::find(views.begin(), views.end(), nearest);
  return found == views.end() ? "" : names[static_cast<std::size_t>(found - views.begin())];
}

/// Relative paths start at the base folder; "~/" is the home.
fs::path Absolute(const std::string& name, const ModelSearch& search) {
  const char* home = std::getenv("HOME");
  if (name.starts_with("~/") && home != nullptr) return fs::path(home) / name.substr(2);
  return fs::path(search.base_folder) / name;
}

/// Whether the name can only be meant as a path.
bool IsPath(const std::string& name) {
  return name.starts_with("/") || name.starts_with("./") || name.starts_with("../") ||
         name.starts_with("~/") || Lower(fs::path(name).extension().string()) == ".gguf" ||
         std::count(name.begin(), name.end(), '/') > 1;
}

Status PathNotFound(const std::string& name, const fs::path& path) {
  std::vector<std::string> names;
  for (const fs::path& other : List(path.parent_path())) names.push_back(other.filename().string());
  const std::string nearest = Nearest(path.filename().string(), names);
  return Status::Invalid(
      "no model ",
      name,
      ": ",
      path.lexically_normal().string(),
      " does not exist",
      nearest.empty()
          ? ""
          : "; did you mean " + (path.parent_path() / nearest).lexically_normal().string() + "?"
  );
}

Status NotFound(const std::string& name, const fs::path& path, const ModelSearch& search) {
  std::vector<std::string> known = HubModels(search.hub_cache);
  std::string places = path.lexically_normal().string();
  for (const std::string& folder : search.package_folders) {
    places += ", the packages in " + folder;
    for (const NamedFile& model : PackageModels(folder)) known.push_back(model.name);
  }
  if (!search.hub_cache.empty()) places += ", the Hugging Face cache " + search.hub_cache;
  const std::string nearest = Nearest(name, known);
  std::string advice = nearest.empty() ? "" : "; did you mean " + nearest + "?";
  if (const auto id = HubId::Parse(name)) {
    advice += "; to download it: hf download " + id->organisation + "/" + id->repository +
              (id->revision == "main" ? "" : " --revision " + id->revision);
  }
  return Status::Invalid("no model ", name, "; looked at ", places, advice);
}

/// Adds ENV/lib/python3*/site-packages, once.
void AddSitePackages(const fs::path& environment, std::vector<std::string>& folders) {
  for (const fs::path& python : List(environment / "lib")) {
    if (!python.filename().string().starts_with("python3")) continue;
    const fs::path folder = python / "site-packages";
    if (!IsFolder(folder)) continue;
    const auto same = [&](const std::string& other) {
      std::error_code error;
      return fs::equivalent(folder, other, error);
    };
    if (std::none_of(folders.begin(), folders.end(), same)) folders.push_back(folder.string());
  }
}

std::string HubCache() {
  const auto variable = [](const char* name) -> fs::path {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const fs::path cache = variable("HF_HUB_CACHE"); !cache.empty()) return cache.string();
  if (const fs::path home = variable("HF_HOME"); !home.empty()) return (home / "hub").string();
  if (const fs::path cache = variable("XDG_CACHE_HOME"); !cache.empty()) {
    return (cache / "huggingface/hub").string();
  }
  if (const fs::path home = variable("HOME"); !home.empty()) {
    return (home / ".cache/huggingface/hub").string();
  }
  return "";
}

/// The file of a package's model, or empty if no package has it.
Result<std::string> FindPackageModel(const std::string& name, const ModelSearch& search) {
  for (const std::string& folder : search.package_folders) {
    std::vector<NamedFile> models = PackageModels(folder);
    std::erase_if(models, [&](const NamedFile& model) { return model.name != Lower(name); });
    if (models.size() > 1) {
      return Status::Invalid(
          models.size(),
          " installed models are called ",
          name,
          ": name one by its path, ",
          models[0].path.string(),
          " or ",
          models[1].path.string()
      );
    }
    if (!models.empty()) return models[0].path.string();
  }
  return "";
}

FoundModel Describe(const std::string& name, const ModelSearch& search) {
  FoundModel found;
  found.name = name;
  const auto path = LocateModel(name, search);
  if (!path.ok()) {
    found.problem = path.status().message();
    return found;
  }
  found.path = *path;
  const auto model = Checkpoint::Open(found.path);
  if (!model.ok()) {
    found.problem = model.status().message();
    std::error_code error;
    const auto size = fs::file_size(found.path, error);
    if (!error) found.size_bytes = size;
    return found;
  }
  found.architecture = (*model)->config().architecture;
  found.context = (*model)->config().context;
  found.size_bytes = (*model)->size_bytes;
  return found;
}

}  // namespace

ModelSearch DefaultModelSearch(std::string base_folder) {
  ModelSearch search;
  search.base_folder = std::move(base_folder);
  std::error_code error;
  fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (; folder.has_relative_path(); folder = folder.parent_path()) {
    AddSitePackages(folder / ".deps/venv", search.package_folders);
  }
  if (const char* environment = std::getenv("VIRTUAL_ENV");
      environment != nullptr && *environment != '\0') {
    AddSitePackages(environment, search.package_folders);
  }
  if (const char* python = std::getenv("MILLSTREAM_PYTHON")) {  // ENVIRONMENT/bin/python
    AddSitePackages(fs::path(python).parent_path().parent_path(), search.package_folders);
  }
  search.hub_cache = HubCache();
  return search;
}

Result<std::string> LocateModel(const std::string& name, const ModelSearch& search) {
  if (name.empty()) return Status::Invalid("a model needs a name or a path");
  const fs::path path = Absolute(name, search);
  if (IsFolder(path)) return ResolveFolder(path);
  if (Exists(path)) return path.string();
  if (IsPath(name)) return PathNotFound(name, path);
  MS_ASSIGN_OR_RETURN(std::string package, FindPackageModel(name, search));
  if (!package.empty()) return package;
  if (const auto id = HubId::Parse(name)) {
    if (const auto snapshot = FindSnapshot(*id, search.hub_cache)) return ResolveFolder(*snapshot);
  }
  return NotFound(name, path, search);
}

std::vector<FoundModel> ListModels(const ModelSearch& search) {
  std::vector<std::string> names;
  for (const std::string& folder : search.package_folders) {
    for (const NamedFile& model : PackageModels(folder)) {
      const bool is_first = std::find(names.begin(), names.end(), model.name) == names.end();
      if (is_first) names.push_back(model.name);
    }
  }
  for (std::string& id : HubModels(search.hub_cache)) names.push_back(std::move(id));
  std::vector<FoundModel> models;
  models.reserve(names.size());
  for (const std::string& name : names) models.push_back(Describe(name, search));
  return models;
}

}  // namespace millstream
