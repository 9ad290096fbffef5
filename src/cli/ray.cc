// SPDX-License-Identifier: Apache-2.0
// Jobs on a Ray cluster: finds the Python that talks to it.
#include <cstdlib>
#include <filesystem>

#include "cli/run_flags.h"
#include "fmt/format.h"
#include "job/remote_workers.h"

namespace millstream {
namespace {

namespace fs = std::filesystem;

// The folder that our Python package is in: that of the installed one that this program is a part
// of, or the clone's.
Result<fs::path> PackageParent(const fs::path& binary) {
  const fs::path folder = binary.parent_path();
  for (const fs::path& parent : {folder / "../..", folder / "../../../python"}) {
    std::error_code error;
    if (fs::exists(parent / "millstream/ray_driver.py", error)) return fs::weakly_canonical(parent);
  }
  return Status::IOError(
      "Millstream's Python package is not beside ",
      binary.string(),
      ": install its wheel, and use the `millstream` that comes with it"
  );
}

Result<std::string> Python(const fs::path& package) {
  if (const char* given = std::getenv("MILLSTREAM_PYTHON")) {
    if (!fs::path(given).is_absolute() || !fs::exists(given)) {
      return Status::Invalid(
          "MILLSTREAM_PYTHON is ", given, ": it must be the absolute path of a Python that has Ray"
      );
    }
    return std::string(given);
  }
  const fs::path own = package.parent_path() / ".deps/venv/bin/python";
  if (fs::exists(own)) return own.string();
  return Status::IOError(
      "--ray needs a Python that has Ray (pip install 'ray>=2.60,<2.61'): set MILLSTREAM_PYTHON to "
      "its absolute path"
  );
}

}  // namespace

void AddRayFlags(CLI::App& run, RunFlags& flags) {
  const auto use_cluster = [&flags](const std::string& address) {
    flags.on_ray = true;
    flags.ray_address = address;
  };
  CLI::Option* const ray = run.add_option_function<std::string>(
      "--ray", use_cluster, "Run on a Ray cluster: the one of this machine, or at an address"
  );
  ray->type_name("HOST:PORT")->expected(0, 1)->default_str("");
  ray->excludes(run.get_option("--workers"));
  run.add_option(
         "--on-interrupt",
         flags.on_interrupt,
         "What Ctrl-C does to a job on a cluster: stop it, or detach, and it goes on"
  )
      ->check(CLI::IsMember({"stop", "detach"}))
      ->needs(ray);
  run.add_flag(
         "--allow-unauthenticated-ray",
         flags.allow_unauthenticated_ray,
         "Use a cluster that asks for no token: who reaches it can run code on it"
  )
      ->needs(ray);
}

Result<JobReport> RunOnRay(
    const RunFlags& flags, JobMonitor& monitor, const Say& say, std::stop_token stop
) {
  std::error_code error;
  const fs::path binary = fs::read_symlink("/proc/self/exe", error);
  MS_ASSIGN_OR_RETURN(const fs::path package, PackageParent(binary));
  MS_ASSIGN_OR_RETURN(const std::string python, Python(package));
  ClusterOptions cluster;
  cluster.carrier = {
      python,
      "-c",
      "import sys; sys.path.insert(0, sys.argv[1]); from millstream import ray_driver; "
      "ray_driver.main()",
      package.string()
  };
  cluster.settings = {
      {"address", flags.ray_address},
      {"allow_unauthenticated", flags.allow_unauthenticated_ray},
      {"binary", binary.string()},
      {"version", MS_VERSION}
  };
  cluster.detaches = flags.on_interrupt == "detach";
  return RunOnCluster(cluster, flags.job, monitor, say, std::move(stop));
}

}  // namespace millstream
