# Members, version and programs are read from the workspace's manifests: a new crate needs no line here.
{
  description = "Conduit, a service mesh for Kubernetes: automatic TLS that cannot break your application";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;

      systems = [
        "aarch64-darwin"
        "aarch64-linux"
        "x86_64-darwin"
        "x86_64-linux"
      ];
      forEachSystem = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});

      at = path: ./. + "/${path}";

      inherit (lib.importTOML ./Cargo.toml) workspace;

      # What cargo reads, and nothing else: a change of the documents builds nothing again.
      src = lib.fileset.toSource {
        root = ./.;
        fileset = lib.fileset.unions (
          [
            ./.cargo/config.toml
            ./Cargo.lock
            ./Cargo.toml
          ]
          ++ map at workspace.members
        );
      };

      build =
        pkgs: arguments:
        pkgs.rustPlatform.buildRustPackage (
          {
            inherit (workspace.package) version;
            inherit src;
            cargoLock.lockFile = ./Cargo.lock;
          }
          // arguments
        );

      # One package for each crate with a program, under the crate's name.
      programs = map (crate: lib.importTOML (at "${crate}/Cargo.toml")) (
        builtins.filter (crate: builtins.pathExists (at "${crate}/src/main.rs")) workspace.members
      );
      program =
        pkgs: manifest:
        let
          inherit (manifest.package) name;
        in
        {
          inherit name;
          value = build pkgs {
            pname = name;
            cargoBuildFlags = [
              "--package"
              name
            ];
            # `checks.tests` tests the workspace once, as a whole.
            doCheck = false;
            meta = {
              description = manifest.package.description or "A part of Conduit";
              license = lib.licenses.asl20;
              mainProgram = (builtins.head (manifest.bin or [ { inherit name; } ])).name;
              platforms = lib.platforms.unix;
            };
          };
        };

      app = package: {
        type = "app";
        program = lib.getExe package;
      };
    in
    {
      packages = forEachSystem (
        pkgs:
        let
          packages = builtins.listToAttrs (map (program pkgs) programs);
        in
        packages // { default = packages.conduit; }
      );

      apps = forEachSystem (
        pkgs:
        let
          packages = self.packages.${pkgs.stdenv.hostPlatform.system};
        in
        rec {
          conduit = app packages.conduit;
          demo = app packages.conduit-demo;
          default = conduit;
        }
      );

      checks = forEachSystem (
        pkgs:
        self.packages.${pkgs.stdenv.hostPlatform.system}
        // {
          tests = build pkgs {
            pname = "conduit-tests";
            # Nothing is kept but that they passed.
            cargoBuildFlags = [ "--workspace" ];
            # drift compares files of Bazel's, most of which are not among the sources.
            cargoTestFlags = [
              "--workspace"
              "--exclude"
              "drift"
            ];
          };
        }
      );

      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.bazelisk
            pkgs.cargo
            pkgs.clippy
            pkgs.kind
            pkgs.kubectl
            pkgs.nixfmt
            pkgs.rustc
            pkgs.rustfmt
          ];
        };
      });

      formatter = forEachSystem (pkgs: pkgs.nixfmt);
    };
}
