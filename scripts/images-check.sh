#!/usr/bin/env bash
# Builds every image for real and starts what is in it once, as the user and on the read-only root that it has in a
# cluster. Needs root, no container engine and no registry: the base is made of Debian's own packages.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/apt.sh
[ "$(id -u)" = 0 ] || { echo "make images-check needs root: it builds in chroots." >&2; exit 1; }
command -v buildah >/dev/null || apt_or_say "buildah, to build images without a daemon" buildah
command -v mmdebstrap >/dev/null || apt_or_say "mmdebstrap, to make a base image" mmdebstrap

cache=$PWD/.cache/images
mkdir -p "$cache"
[ -f "$cache/base.tar" ] || mmdebstrap --quiet --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$cache/base.tar"

# Layers share their files where the kernel can do that here; else every step of a build is a copy of everything (gigabytes).
driver=overlay
mkdir -p "$cache"/try/{lower,upper,work,both}
mount -t overlay overlay -o "lowerdir=$cache/try/lower,upperdir=$cache/try/upper,workdir=$cache/try/work" "$cache/try/both" 2>/dev/null \
  && umount "$cache/try/both" || driver=vfs
buildah=(buildah --root "$cache/$driver" --runroot "$cache/run" --storage-driver "$driver")
options=(--isolation chroot --network host --pull-never --quiet)
[ "$driver" = vfs ] || options+=(--layers)
for file in /etc/pip.conf /etc/ssl/certs; do # a mirror or a certificate that this machine's pip was told of
  [ ! -e "$file" ] || options+=(--volume "$file:$file:ro")
done

folder=$(mktemp -d)
pid=""
cleanup() {
  [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
  "${buildah[@]}" rm --all >/dev/null 2>&1 || true
  rm -rf "$folder"
}
trap cleanup EXIT

"${buildah[@]}" images --quiet localhost/base >/dev/null 2>&1 || {
  printf 'FROM scratch\nADD base.tar /\n' >"$folder/Dockerfile"
  "${buildah[@]}" bud "${options[@]}" --tag localhost/base --file "$folder/Dockerfile" "$cache" >/dev/null
}
services=(${*:-gateway generator storage web})
for service in "${services[@]}"; do
  "${buildah[@]}" bud "${options[@]}" --build-arg BASE=localhost/base --build-arg VERSION=check --target "$service" \
    --tag "nanobatch/$service:check" --file deploy/Dockerfile . >/dev/null
  echo "built nanobatch/$service"
done

# One process per image, alone: it comes up, says so, and ends in order. What it waits for does not matter here.
key=$(openssl rand -hex 32)
declare -A listening=([gateway]=gateway.listening [generator]=generator.serving [storage]=storage.listening [web]=web.listening)
for service in "${services[@]}"; do
  container=$("${buildah[@]}" from "nanobatch/$service:check")
  root=$("${buildah[@]}" mount "$container")
  config=$("${buildah[@]}" inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}}' "nanobatch/$service:check")
  [ "$config" = "10001:10001 [nanobatch serve $service]" ] || { echo "$service is configured as $config" >&2; exit 1; }
  labels=""
  for name in title version licenses vendor; do
    labels+="$("${buildah[@]}" inspect --type image --format "{{index .OCIv1.Config.Labels \"org.opencontainers.image.$name\"}}" "nanobatch/$service:check"), "
  done
  [ "$labels" = "nanobatch $service, check, Apache-2.0, nanobatch, " ] || { echo "$service is labelled $labels" >&2; exit 1; }
  unshare --mount bash -c '
    mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && mount -t tmpfs -o mode=1777 tmpfs "$0/tmp" &&
    mount --bind /proc "$0/proc" && mount --bind /dev "$0/dev" &&
    exec chroot --userspec=10001:10001 "$0" /usr/bin/env -i PATH=/opt/nanobatch/bin:/usr/bin:/bin HOME=/tmp TMPDIR=/tmp \
      PYTHONDONTWRITEBYTECODE=1 ENCRYPTION_KEY="$2" NANOBATCH_DATA_DIR=/tmp/data NANOBATCH_GATEWAY_GRPC=127.0.0.1:0 \
      NANOBATCH_GATEWAY_HTTP=127.0.0.1:0 NANOBATCH_GENERATOR_GRPC=127.0.0.1:0 NANOBATCH_STORAGE_GRPC=127.0.0.1:0 \
      NANOBATCH_WEB=127.0.0.1:0 sh -c "cd /tmp && exec nanobatch serve $1"
  ' "$root" "$service" "$key" >"$folder/$service.log" 2>&1 &
  pid=$!
  for _ in $(seq 600); do
    grep -q "${listening[$service]}" "$folder/$service.log" && break
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  grep -q "${listening[$service]}" "$folder/$service.log" || { echo "$service did not start:" >&2; cat "$folder/$service.log" >&2; exit 1; }
  kill -TERM "$pid"
  code=0
  wait "$pid" || code=$?
  pid=""
  [ "$code" = 0 ] || { echo "$service ended with $code:" >&2; cat "$folder/$service.log" >&2; exit 1; }
  echo "started nanobatch/$service: $(du -sm "$root/opt/nanobatch" | cut -f1) MB beside the base, as user 10001 on a read-only root"
  "${buildah[@]}" umount "$container" >/dev/null
done
