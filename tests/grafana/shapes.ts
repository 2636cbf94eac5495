// The files that Grafana reads, as types: those of its published schema if it has them. Dashboards are checked as literals,
// so a member that the schema lacks is an error too.
import type * as grafana from '@grafana/schema';
import type { CloudWatchMetricsQuery } from '@grafana/schema/dist/esm/raw/composable/cloudwatch/dataquery/x/CloudWatchDataQuery_types.gen';
import type { Options as TableOptions } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type {
  FieldConfig as TimeSeriesField,
  Options as TimeSeriesOptions,
} from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

/** A type as JSON holds it: the values of enumerations in place of their names. */
type Json<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends number | boolean | null | undefined
      ? T
      : T extends Array<infer One>
        ? Array<Json<One>>
        : { [Name in keyof T]: Json<T[Name]> };

/** A query as the Athena plugin stores it; it publishes no schema. https://github.com/grafana/athena-datasource */
interface AthenaQuery {
  refId: string;
  datasource: { type: 'grafana-athena-datasource'; uid: string };
  format: 0 | 1 | 2;
  rawSQL: string;
  connectionArgs: {
    region?: string;
    catalog?: string;
    database?: string;
    resultReuseEnabled?: boolean;
    resultReuseMaxAgeInMinutes?: number;
  };
}

type CloudWatchQuery = Json<Omit<CloudWatchMetricsQuery, 'datasource'>> & {
  datasource: { type: 'cloudwatch'; uid: string };
};

interface Drawn<Type extends string, Options, Custom>
  extends Omit<Json<grafana.Panel>, 'type' | 'targets' | 'options' | 'fieldConfig' | 'datasource'> {
  type: Type;
  datasource: Json<grafana.DataSourceRef>;
  targets: Array<CloudWatchQuery | AthenaQuery>;
  options: Json<Options>;
  fieldConfig: {
    defaults: Omit<Json<grafana.FieldConfig>, 'custom'> & { custom?: Json<Custom> };
    overrides: Json<grafana.FieldConfigSource['overrides']>;
  };
}

export interface Board extends Omit<Json<grafana.Dashboard>, 'panels'> {
  uid: string;
  title: string;
  panels: Array<Drawn<'timeseries', TimeSeriesOptions, TimeSeriesField> | Drawn<'table', TableOptions, grafana.TableFieldOptions>>;
}

// Provisioning files have no published schema; these are the members that Grafana's documentation names.
// https://grafana.com/docs/grafana/latest/administration/provisioning/
type Settings = Json<grafana.DataSourceJsonData>;

interface Source<Type extends string, Own> {
  name: string;
  type: Type;
  uid: string;
  access: 'proxy' | 'direct';
  url?: string;
  editable?: boolean;
  isDefault?: boolean;
  version?: number;
  jsonData: Settings & Own;
  secureJsonData?: Record<string, string>;
}

export interface DataSources {
  apiVersion: 1;
  datasources: Array<
    | Source<'cloudwatch', { assumeRoleArn?: string; externalId?: string; customMetricsNamespaces?: string }>
    | Source<
        'grafana-athena-datasource',
        { catalog: string; database: string; workgroup: string; outputLocation?: string; assumeRoleArn?: string }
      >
    | Source<'prometheus', { timeInterval?: string; httpMethod?: 'GET' | 'POST' }>
  >;
}

export interface Providers {
  apiVersion: 1;
  providers: Array<{
    name: string;
    type: 'file';
    orgId?: number;
    folder?: string;
    folderUid?: string;
    disableDeletion?: boolean;
    editable?: boolean;
    updateIntervalSeconds?: number;
    allowUiUpdates?: boolean;
    options: { path: string; foldersFromFilesStructure?: boolean };
  }>;
}
