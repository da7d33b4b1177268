# The agent, the indexer and every command in one image: docker build -t auditship . && docker run --rm auditship --help
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/auditship
ENV PATH="/opt/auditship/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY auditship auditship
COPY agent agent
COPY indexer indexer
COPY index_templates index_templates
COPY kibana kibana
RUN pip install '.[indexer]'

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin auditship \
 && install --directory --owner auditship --group auditship --mode 0750 \
    /etc/auditship /run/auditship /var/lib/auditship /var/log/gateways
COPY --from=build /opt/auditship /opt/auditship
ENV PATH="/opt/auditship/bin:$PATH" PYTHONUNBUFFERED=1
USER auditship
STOPSIGNAL SIGTERM
ENTRYPOINT ["auditship"]
CMD ["--help"]
