# The dashboard in a container:
#
#   docker build -t patchbay .
#   docker run --rm -p 127.0.0.1:8501:8501 -v "$PWD/clips:/data:ro" -v patchbay-runs:/runs \
#       -v patchbay-recordings:/recordings patchbay
#
# Keep the 127.0.0.1: whoever reaches the port can use the server (SECURITY.md). Manifests and clips are read below
# /data, runs are kept in /runs, own recordings in /recordings. Without a network at run time everything works but hub ids.
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    OMP_WAIT_POLICY=PASSIVE \
    GOMP_SPINCOUNT=0

RUN useradd --create-home --uid 1000 patchbay \
    && install -d -o patchbay -g patchbay /data /runs /recordings
WORKDIR /app

# Give --build-arg TORCH_INDEX=URL with the index of CPU builds that PyTorch's own installation page names: it keeps
# gigabytes of CUDA packages out of the image. Left empty, torch comes from pip's usual index, like everything else.
ARG TORCH_INDEX=""
COPY requirements.txt ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements.txt)" \
    && pip install -r requirements.txt

COPY app.py LICENSE ./
COPY .streamlit ./.streamlit
COPY pages ./pages
COPY components ./components
COPY interp_core ./interp_core
COPY assets ./assets

USER patchbay

# Inside the container every interface, because a published port arrives at one of them; outside it, what -p says.
ENV STREAMLIT_SERVER_ADDRESS=0.0.0.0 \
    STREAMLIT_SERVER_PORT=8501 \
    STREAMLIT_SERVER_HEADLESS=true \
    PATCHBAY_ROOTS=/data \
    PATCHBAY_RUNS=/runs \
    PATCHBAY_DATA=/recordings
VOLUME ["/data", "/runs", "/recordings"]
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/api/health', timeout=4)"]
CMD ["streamlit", "run", "app.py"]
